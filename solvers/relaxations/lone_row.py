"""A wide row's bound, round by round: a split in blocks, reduced-cost fixing, a split of what is left."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.groups.central_path import group_split
from solvers.bounds.groups.split import GroupSplit, regrets, relaxed
from solvers.bounds.node.restriction import elimination, part_of, restrict
from solvers.bounds.split import Split
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.heuristics.rows.search import state
from solvers.heuristics.rows.swaps import GAIN, SWAPS, descend
from solvers.heuristics.rows.tableau import RowData, refresh
from solvers.problem import Mask


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
        self._lost = 0.0

    def lift(self, size: int, stopped: Callable[[], object], *, fixing: bool = True) -> None:
        """One round: fix what the last split allows, and split what is left in blocks of `size`.

        Args:
            size: inputs of a block, a power of two.
            stopped: polled; a true answer ends the round.
            fixing: whether entries may be fixed, and pools left whole; no certificate holds either.
        """
        if fixing and self._current is not None:
            self._fix(*self._current)
            self._current = None
        rest = self._rest
        if rest.trivial or self.value <= 0.0 or stopped():
            return
        self.rounds += 1
        split, bound = group_split(
            rest, self._d, self._z, self.value, size=size, whole=fixing, stopped=stopped
        )
        bound -= self._lost
        self._current = (split, bound)
        if not self.fixed and bound > self._whole:
            self.split, self._whole = split, bound
        self.bound = max(self.bound, min(bound, self.value))

    def polish(self, stopped: Callable[[], object]) -> None:
        """Round the relaxed weights of the whole row's split to a mask, and swap until nothing gains."""
        if self.split is None:
            return
        H, b, w = self.block.H[0], self.block.B[0, :, 0], self.block.W[0, :, 0].copy()
        u = relaxed(self.split.remainder(H), b - self.split.q)
        kept, gone = regrets(self.block, self.split)
        for score in (np.abs(u) * np.sqrt(np.diagonal(H)), gone - kept):
            pruned = smallest(self.block, score)
            row = state(RowData(True, H, w, np.zeros(len(w)), self.block.labels), pruned)
            while not stopped() and descend(row, GAIN, SWAPS) == SWAPS:
                refresh(row)
            value = self.block.value(pruned)
            if value < self.value:
                self.pruned, self.value = pruned, value

    def _fix(self, split: GroupSplit, bound: float) -> None:
        rest, passing = self._rest, self.value * (1.0 + 1e-9) - bound
        kept, gone = regrets(rest, split)
        fix: NDArray[np.int64] = (gone > passing).astype(np.int64) - (kept > passing)
        if not fix.any() or ((kept > passing) & (gone > passing)).any():
            return
        lost = elimination(rest, self._d, 1e-6 * self.value) if (fix > 0).any() else 0.0
        free, left = restrict(part_of(rest), fix)
        if not len(free) or (left.keep < 0).any() or len(np.unique(left.labels)) < len(left.keep):
            return
        W = np.linalg.solve(left.H[0], left.B[0])[None]
        self._rest = Block(True, left.H, left.B, W, float(left.constant), left.labels, left.keep, rest.rows)
        self._d, self._z = self._d[free], self._z[free]
        self.fixed += rest.n - len(free)
        self._lost += lost


def smallest(block: Block, score: Array) -> Mask:
    """`[n]` True at every pool's `prune` smallest scores."""
    pruned = np.zeros(block.n, dtype=bool)
    for p, count in enumerate(block.prune):
        pool = np.flatnonzero(block.labels == p)
        pruned[pool[np.argsort(score[pool], kind="stable")[:count]]] = True
    return pruned
