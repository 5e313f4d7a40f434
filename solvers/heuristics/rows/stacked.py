"""Columns, which all rows keep or prune: one compiled state, or a state a row if curvatures differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.heuristics.rows.search import row_data, state
from solvers.heuristics.rows.swaps import price
from solvers.heuristics.rows.tableau import prune, refresh, restore
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.compiled import FLAGS, njit

FRESH = 100
"""Columns that are pruned between two fresh states."""


def stacked(problem: SubsetProblem) -> bool:
    """Whether a reduced problem's columns take a state for every row."""
    return problem.refit and problem.pools.coupled and not problem.hessian.shared


class Columns:
    """The pruned columns of a problem.

    Joint rows with curvatures of their own have a state each (`Row`), about as large as a curvature, and
    their costs add up; otherwise one state stands for all rows.

    Args:
        problem: a reduced problem whose rows share a mask.
        pruned: `[n]` columns to start from.

    Attributes:
        rows: the states.
    """

    def __init__(self, problem: SubsetProblem, pruned: Mask) -> None:
        rows = range(problem.m if stacked(problem) else 1)
        self.rows = [state(row_data(problem, r), pruned.copy()) for r in rows]
        self._labels = problem.pools.labels[0]

    @property
    def pruned(self) -> Mask:
        """`[n]` columns pruned now (a view)."""
        pruned: Mask = self.rows[0].pruned
        return pruned

    @property
    def cost(self) -> float:
        """What they cost, all rows together."""
        return float(sum(row.cost[0] for row in self.rows))

    def refresh(self) -> None:
        """Compute every state from the data, dropping whatever rounding the moves have gathered."""
        for row in self.rows:
            refresh(row)

    def prune_cheapest(self, counts: NDArray[np.int64]) -> None:
        """Prune columns in turn, each the cheapest: joint, `sum_r w^_rj^2 / (2 [H_r,SS^-1]_jj)`.

        Args:
            counts: `[pools]` how many of each pool.
        """
        choice, left = -1, counts.copy()
        for done in range(int(counts.sum()) + 1):
            total = np.where(left[self._labels] > 0, 0.0, np.inf)
            for row in self.rows:
                _prune_and_add(row, choice, done % FRESH == 0, total)
            choice = int(total.argmin())
            left[self._labels[choice]] -= 1

    def swap(self, gain: float) -> bool:
        """Make the best swap of two `stacked` columns of a pool if it gains more than `gain`; whether so."""
        total = np.zeros((int(self.rows[0].size[0]), len(self.pruned)))
        for row in self.rows:
            _add_swaps(row, total)
        total[self._labels[self.rows[0].kept[: len(total)], None] != self._labels] = np.inf
        if not total.size or not total.min() < -gain:
            return False
        slot, come = divmod(int(total.argmin()), total.shape[1])
        go = int(self.rows[0].kept[slot])
        for row in self.rows:
            restore(row, come)
            prune(row, go)
        return True


@njit(cache=True, nogil=True)
def _prune_and_add(row, choice, fresh, total):  # type: ignore[no-untyped-def]
    """Prune a column, if it is one; then add what pruning each of the others costs the row to `total [n]`."""
    if choice >= 0:
        prune(row, choice)
        if fresh:
            refresh(row)
    for k in range(len(total)):
        total[k] += np.inf if row.pruned[k] else price(row, k, 1.0)


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _add_swaps(row, total):  # type: ignore[no-untyped-def]
    """Add the row's change of cost by every swap to `total [survivors, n]`: the k-th column comes back.

    If i comes back and j goes it is `-u_i^2/(2 M_ii) + (w^_j + E_ji u_i/M_ii)^2 / (2 (E_jj + E_ji^2/M_ii))`,
    in the terms of `Row`; infinite where i is not pruned.
    """
    n, ratio, inverse, back = len(row.w), row.spare[0], row.spare[1], row.spare[2]
    for k in range(n):
        inverse[k], ratio[k], back[k] = 0.0, 0.0, np.inf
        if row.pruned[k]:
            inverse[k] = 1.0 / row.M[k]
            ratio[k] = row.y[k] * inverse[k]
            back[k] = -0.5 * row.y[k] * ratio[k]
    for a in range(len(total)):
        line, now, scale = row.E[a], row.y[row.kept[a]], row.E[a, row.kept[a]]
        for k in range(n):
            top = now + line[k] * ratio[k]
            total[a, k] += back[k] + 0.5 * top * top / (scale + line[k] * line[k] * inverse[k])
