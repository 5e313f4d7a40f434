"""How a budget that rows share moves between them while every row's masks get better."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from solvers.allocation import allocate
from solvers.heuristics.rows.search import Effort, RowSearch, limits_of, row_data, state
from solvers.heuristics.rows.swaps import cheapest, descend
from solvers.heuristics.rows.tableau import RowData, prune, refresh, restore
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.compiled import njit
from solvers.runtime.parallel import side_by_side

GAIN = 1e-9
"""Counts move when the layer's cost falls by more than this, relative."""
SWAPS = 50
"""Swaps between two fresh tableaux."""


class Shares:
    """Every row's searches, one for each number of pruned entries that was looked at.

    A row's curve is known around its count: from its best mask the cheapest entry goes (or comes back),
    swaps follow until none gains, and again. Counts are allotted exactly among the known pieces of the
    curves.

    Args:
        problem: a reduced problem of one pool for the layer.
        mask: `[m, n]` to start from.
        reach: counts to look at on either side.
        seed: of the searches.
        effort: of the searches.
    """

    def __init__(self, problem: SubsetProblem, mask: Mask, reach: int, seed: int, effort: Effort) -> None:
        self._reach, self._seed, self._effort = reach, seed, effort
        self._total, self.moves = int(mask.sum()), 0
        self.counts = mask.sum(axis=1)
        self._known: list[dict[int, RowSearch]] = [{} for _ in mask]
        self._seen = np.full(len(mask), -np.inf)
        known = limits_of(problem)
        for r, pruned in enumerate(mask):
            data = row_data(problem, r, known)
            self._take(r, data, pruned, float(state(data, pruned.copy()).cost[0]))

    @property
    def searches(self) -> list[RowSearch]:
        """Every row's search at its present count."""
        return [known[k] for known, k in zip(self._known, self.counts.tolist(), strict=True)]

    def beside(self, turn: int) -> list[RowSearch]:
        """The searches of other counts, turn by turn 1 more, 1 less, 2 more .. than the present ones."""
        step = (1 + turn // 2 % self._reach) * (1 - 2 * (turn % 2))
        pairs = zip(self._known, self.counts.tolist(), strict=True)
        return [known[k + step] for known, k in pairs if k + step in known]

    def rebalance(self, stopped: Callable[[], object]) -> None:
        """Move counts between rows until nothing gains."""
        while not stopped():
            fresh = [r for r, search in enumerate(self.searches) if search.value != self._seen[r]]
            self.moves += sum(side_by_side(lambda r: 0 if stopped() else self._look_around(r), fresh))
            first = np.array([min(known) for known in self._known])
            curves = [
                np.array([known[k].value for k in range(min(known), max(known) + 1)]) for known in self._known
            ]
            counts = first + allocate(curves, self._total - int(first.sum()))
            now = sum(search.value for search in self.searches)
            then = sum(known[k].value for known, k in zip(self._known, counts.tolist(), strict=True))
            if then >= now - GAIN * abs(now):
                return
            self._seen[counts != self.counts] = -np.inf
            self.counts = counts

    def _take(self, r: int, data: RowData, mask: Mask, value: float) -> None:
        k = int(mask.sum())
        if k in self._known[r]:
            self._known[r][k].take(mask, value)
        else:
            self._known[r][k] = RowSearch(data, mask, value, [self._seed, r, k], self._effort)

    def _look_around(self, r: int) -> int:
        search = self.searches[r]
        n, k, moves = len(search.mask), int(self.counts[r]), 0
        for towards, steps in ((1, min(self._reach, n - k)), (-1, min(self._reach, k))):
            masks, values = np.zeros((steps + 1, n), bool), np.zeros(steps + 1)
            row = state(search.data, search.mask.copy(), self._reach + 1)
            moves += _follow(row, towards, masks, values)
            for mask, value in zip(masks, values.tolist(), strict=True):
                self._take(r, search.data, mask, value)
        self._seen[r] = search.value
        return moves


@njit(cache=True, nogil=True)
def _follow(row, towards, masks, values):  # type: ignore[no-untyped-def]
    """Descend at this count and the next ones; what was found of each; `swaps`."""
    swaps = 0
    for step in range(len(values)):
        if step and towards > 0:
            prune(row, cheapest(row, towards))
        elif step:
            restore(row, cheapest(row, towards))
        made = SWAPS
        while made == SWAPS:
            made = descend(row, GAIN, SWAPS)
            swaps += made
            if made == SWAPS:
                refresh(row)
        masks[step], values[step] = row.pruned, row.cost[0]
    return swaps
