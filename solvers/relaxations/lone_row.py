"""A wide row's bound, round by round: a split in blocks, reduced-cost fixing, a split of what is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.groups.central_path import CLOSED, COOLING, GROUPING, LAST, group_split, start
from solvers.bounds.groups.clusters import correlated
from solvers.bounds.groups.opening import Opening
from solvers.bounds.groups.split import GroupSplit, regrets, relaxed
from solvers.bounds.node.restriction import elimination, part_of, restrict
from solvers.bounds.split import Split
from solvers.form.blocks import Block
from solvers.heuristics.rows.search import state
from solvers.heuristics.rows.swaps import GAIN, SWAPS, descend
from solvers.heuristics.rows.tableau import RowData, refresh
from solvers.problem import Mask

HEAT = 3.0
"""T times the barrier's parameter where a split goes on that was left, by the gap that it had."""
COLDEST = 1e-3
"""And as a share of the gap at the end, below which none goes on."""
FEW, MANY = 2, 6
"""Rows that others begin with: at least and at most, and otherwise one in as many as that."""


class LoneRow:
    """A lone joint row: its best mask and bound, and what is left of it once entries are fixed.

    An entry whose other choice lifts the bound past the value of a mask is fixed: what remains is a smaller
    row (see `solvers.bounds.node.restriction`), whose bound holds for every mask that costs less than
    that one.

    Attributes:
        pruned: `[n]` the best mask.
        value: what it costs.
        bound: no mask costs less.
        split: the best split in blocks of the whole row, or None.
        fixed: entries fixed.
        rounds: rounds begun.
    """

    def __init__(self, block: Block, split: Split, pruned: Mask, bound: float) -> None:
        self.block, self.pruned, self.value, self.bound = block, pruned.copy(), block.value(pruned), bound
        self.split: GroupSplit | None = None
        self.fixed = self.rounds = 0
        self._whole = bound
        self._rest = block
        self._d, self._z = split.d[0], split.z
        self._current: tuple[GroupSplit, float] | None = None
        self._size, self._ended, self._last = 0, False, LAST
        self._lost = 0.0

    def lift(
        self,
        size: int,
        stopped: Callable[[], object],
        *,
        fixing: bool = True,
        opening: Opening | None = None,
    ) -> None:
        """One round: fix what the last split allows, and split what is left in blocks.

        After a round that was stopped, the next one of that size goes on with its split; after one that came
        to its end and fixes nothing, too, nearer to the best split.

        Args:
            size: inputs of a block at most, a power of two.
            stopped: polled; a true answer ends the round.
            fixing: whether entries may be fixed: no certificate holds that.
            opening: where the whole row begins; None where groups are to be found for it.
        """
        going_on = self._current is not None and size == self._size
        if self._current is not None and (self._ended or not going_on):
            fixed = fixing and self._fix(*self._current)
            self._last = self._last * COOLING if going_on and not fixed else LAST
            if fixed:
                self._current, going_on = None, False
        if self._last < COLDEST:
            return
        rest = self._rest
        if rest.trivial or self.bound >= self.value or stopped():
            return
        known, heat = None, GROUPING
        if going_on and self._current is not None:
            known, reached = self._current
            left = 1.0 - (reached + self._lost) / self.value
            if left <= CLOSED:
                return
            heat = min(heat, left * (HEAT if self._last == LAST else self._last / COOLING))
        elif opening is not None and not self.fixed:
            known = start(rest, self._d, self._z, opening.families)
        self.rounds += 1
        split, bound = group_split(
            rest, self._d, self._z, self.value,
            size=size, known=known, heat=heat, last=self._last, stopped=stopped,
        )  # fmt: skip
        bound -= self._lost
        self._current, self._size, self._ended = (split, bound), size, not stopped()
        if not self.fixed and bound > self._whole:
            self.split, self._whole = split, bound
        self.bound = max(self.bound, min(bound, self.value))

    @classmethod
    def opening(cls, rows: Sequence[LoneRow], size: int, stopped: Callable[[], object]) -> Opening:
        """Where rows of one curvature and budget, of which no entries are fixed, begin.

        Args:
            rows: at least one.
            size: inputs of a group at most, a power of two.
            stopped: polled; a true answer ends the work.
        """
        first, some = rows[0], min(len(rows), max(FEW, min(MANY, len(rows) // MANY)))
        groups = correlated(first.block, first._d, size)
        picked = np.unique(np.linspace(0, len(rows) - 1, some).astype(np.int64)).tolist()
        starts = [(rows[i].block, rows[i]._d, rows[i]._z, rows[i].value) for i in picked]
        return Opening.of(starts, groups, stopped)

    def polish(self, stopped: Callable[[], object]) -> bool:
        """Round the relaxed weights of the whole row's split to a mask, and swap until nothing gains.

        Returns:
            Whether that mask is the best.
        """
        if self.split is None:
            return False
        H, b, w = self.block.H[0], self.block.B[0, :, 0], self.block.W[0, :, 0].copy()
        u = relaxed(self.split.remainder(H), b - self.split.q)
        kept, gone = regrets(self.block, self.split)
        known = self.value
        for score in (np.abs(u) * np.sqrt(np.diagonal(H)), gone - kept):
            pruned = self.block.smallest(score)
            row = state(RowData(True, H, w, np.zeros(len(w)), self.block.labels), pruned)
            while not stopped() and descend(row, GAIN, SWAPS) == SWAPS:
                refresh(row)
            value = self.block.value(pruned)
            if value < self.value:
                self.pruned, self.value = pruned, value
        return self.value < known

    def _fix(self, split: GroupSplit, bound: float) -> bool:
        """Fix entries, if there are any to fix, and say so."""
        rest, passing = self._rest, self.value * (1.0 + 1e-9) - bound
        kept, gone = regrets(rest, split)
        fix: NDArray[np.int64] = (gone > passing).astype(np.int64) - (kept > passing)
        if not fix.any() or ((kept > passing) & (gone > passing)).any():
            return False
        lost = elimination(rest, self._d, 1e-6 * self.value) if (fix > 0).any() else 0.0
        free, left = restrict(part_of(rest), fix)
        if not len(free) or (left.keep < 0).any() or len(np.unique(left.labels)) < len(left.keep):
            return False
        W = np.linalg.solve(left.H[0], left.B[0])[None]
        self._rest = Block(True, left.H, left.B, W, float(left.constant), left.labels, left.keep, rest.rows)
        self._d, self._z = self._d[free], self._z[free]
        self.fixed += rest.n - len(free)
        self._lost += lost
        return True
