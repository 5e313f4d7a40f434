"""Tabu search in one row, round by round: from a shaken mask, or from one between two of its elites."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from math import comb, prod

import numpy as np

from solvers.form.blocks import blocks
from solvers.hessian import Array
from solvers.heuristics.rows.reach import correlations
from solvers.heuristics.rows.tableau import Row, RowData, open_row, read_only
from solvers.heuristics.rows.walks import insert, relink, shake, tabu_walk
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.compiled import njit
from solvers.runtime.plain import plain

MANY = 256
"""Entries of a pool from which swaps of a selection are sorted out by what they can gain at most."""
OFTEN = 20
"""Stop after this many swaps per feasible mask: hardly one can have been missed then."""


def row_data(problem: SubsetProblem, r: int, limits: Array | None = None) -> RowData:
    """Row r of the decisions of a reduced problem; row r's part in joint columns with a curvature a row.

    Args:
        problem: what to search.
        r: the row.
        limits: from `limits_of`, if they are known.
    """
    labels, n = problem.pools.labels[0 if problem.pools.coupled else r], problem.n
    if problem.pools.coupled and problem.refit and problem.hessian.shared:
        gram = problem.W.T @ problem.W
        return RowData(True, read_only(problem.hessian.dense(0)), np.zeros(n), np.zeros(n), labels, gram)
    if problem.pools.coupled and not problem.refit:
        (block,) = blocks(problem)
        H, w, c = block.H[0], np.ones(n), block.B[0, :, 0].copy()
    else:
        H, w = problem.hessian.dense(r), problem.W[r].copy()
        c = np.zeros(n) if problem.G is None else problem.G[r] * w
    data = RowData(problem.refit, read_only(H), w, c, labels)
    if not _in_wide_pools(problem):
        return data
    return data._replace(limits=correlations(data.H) if limits is None else limits)


def limits_of(problem: SubsetProblem) -> Array | None:
    """What `row_data` would compute again for every row, or None where there is nothing of the kind."""
    if not _in_wide_pools(problem) or problem.pools.coupled or not problem.hessian.shared:
        return None
    found: Array = correlations(read_only(problem.hessian.dense(0)))
    return found


def compile_limits() -> None:
    """Have ready what is compiled for wide pools alone."""
    if not plain():
        _correlate_once()


@cache
def _correlate_once() -> None:
    correlations(read_only(np.eye(2)))


def _in_wide_pools(problem: SubsetProblem) -> bool:
    return not problem.refit and min(problem.n, int(problem.pools.sizes.max())) >= MANY


def state(data: RowData, pruned: Mask, room: int = 1) -> Row:
    """The compiled state at a mask `[n]`, which it changes, with room for so many more survivors."""
    row: Row = open_row(data.read_only(), pruned, int((~pruned).sum()) + room)
    return row


@dataclass(frozen=True)
class Effort:
    """What one round does.

    Attributes:
        patience: swaps without a better mask that end a walk, at least; an eighth of the inputs if more.
        elites: masks kept.
        relinks: share of the rounds that start between two elites.
    """

    patience: int = 30
    elites: int = 8
    relinks: float = 0.25


class RowSearch:
    """The search of one row at one number of pruned entries.

    Attributes:
        data: the row.
        swaps: made so far.

    Args:
        data: the row.
        mask: `[n]` to start from.
        value: what it costs.
        seed: of every random choice.
        effort: of one walk.
    """

    def __init__(self, data: RowData, mask: Mask, value: float, seed: list[int], effort: Effort) -> None:
        self.data, self.swaps, self._rounds = data.read_only(), 0, 0
        self._masks, self._values = mask[None].copy(), np.array([value])
        self._seed, self._effort = seed, effort

    @property
    def mask(self) -> Mask:
        """`[n]` the best mask (a view)."""
        best: Mask = self._masks[0]
        return best

    @property
    def value(self) -> float:
        """What it costs."""
        return float(self._values[0])

    @property
    def spent(self) -> float:
        """Swaps made, times the share of the inputs that are kept."""
        return self.swaps * float((~self.mask).mean())

    @property
    def exhausted(self) -> bool:
        """Whether so many swaps were made that hardly a mask can have been missed."""
        return self.swaps >= OFTEN * (self._choices - 1)

    @cached_property
    def _choices(self) -> int:
        sizes = np.bincount(self.data.labels)
        gone = np.bincount(self.data.labels, weights=self.mask).astype(int)
        return prod(comb(size, count) for size, count in zip(sizes.tolist(), gone.tolist(), strict=True))

    def take(self, mask: Mask, value: float) -> None:
        """A mask from elsewhere."""
        insert(self._masks, self._values, mask, value)

    def round(self) -> None:
        """One walk; the first one starts at the best mask itself."""
        effort = self._effort
        if not self._rounds:
            more = effort.elites - 1
            self._rng = np.random.default_rng(self._seed)
            self._masks = np.vstack([self._masks, np.zeros((more, len(self.data.w)), bool)])
            self._values = np.append(self._values, np.full(more, np.inf))
        patience = max(effort.patience, len(self.data.w) // 8)
        share = effort.relinks if self._rounds else -1.0
        self.swaps += _round(self.data, self._masks, self._values, share, patience, self._rng)
        self._rounds += 1


@njit(cache=True, nogil=True)
def _round(data, masks, values, relinks, patience, rng):  # type: ignore[no-untyped-def]
    """One walk, whose best mask may become one of the elites `masks`; the swaps that it made.

    It starts between two elites with probability `relinks`, else from the best one, shaken; or not shaken, if
    `relinks` is negative.
    """
    known = (values < np.inf).sum()
    best = masks[0].copy()
    s = len(best) - best.sum()
    linking = known > 1 and rng.random() < relinks
    start = target = 0
    if linking:
        start = int(rng.random() * known)
        target = (start + 1 + int(rng.random() * (known - 1))) % known
    row = open_row(data, masks[start].copy(), s + 1)
    if target != start:
        relink(row, masks[target])
    elif relinks >= 0.0:
        shake(row, 1 + int(rng.random() * min(s, len(best) - s)), rng)
    swaps, value = tabu_walk(row, best, patience, rng)
    insert(masks, values, best, value)
    return swaps
