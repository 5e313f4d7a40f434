"""A proof that no decisions of a block cost less than a bound: a split, a tree, and a vector a leaf."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.hessian import Array

IMPOSSIBLE = -1
"""Takes the place of a leaf's vector where the budget has no mask left."""


@dataclass(frozen=True)
class Proof:
    """A branching tree over one block (`solvers.blocks.Block`) whose leaves bound its cost.

    Every inner node branches on one entry: a child where it is pruned, and one where it is kept. A leaf's
    fixings are those on its path; its claim is at most `solvers.bounds.evaluate.lower_bound` at its vector
    and fixings. The least claim bounds the block. Entries that a search fixes by scores are a chain of
    nodes with a leaf each, which share a vector.

    Attributes:
        rows: the problem's rows that follow the block's decisions.
        keep: `[pools]` decisions kept.
        d: `[g, n]` split.
        entry: `[T]` decision that each node branches on, -1 for a leaf; node 0 is the root.
        pruned: `[T]` child where that decision is pruned, -1 for a leaf.
        kept: `[T]` child where it is kept, -1 for a leaf.
        vector: `[T]` the leaf's row of `u`; leaves may share one. `IMPOSSIBLE` where the fixings leave no
            mask of the budget; any number for inner nodes.
        u: `[V, g, n, c]` points at which the bound is evaluated; double precision where single has no room.
        claim: `[T]` each leaf's bound on the block's cost; any number for inner nodes.
    """

    rows: NDArray[np.int64]
    keep: NDArray[np.int64]
    d: Array
    entry: NDArray[np.int32]
    pruned: NDArray[np.int32]
    kept: NDArray[np.int32]
    vector: NDArray[np.int32]
    u: NDArray[np.floating]
    claim: Array

    @property
    def bounding(self) -> NDArray[np.bool_]:
        """`[T]` the leaves that hold masks."""
        return np.asarray((self.entry < 0) & (self.vector != IMPOSSIBLE))

    @property
    def bound(self) -> float:
        """What the proof shows: the least claim."""
        return float(self.claim[self.bounding].min())
