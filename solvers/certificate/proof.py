"""A proof that no decisions of a block cost less than a bound: splits, a tree, and a vector a leaf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.hessian import Array

MARGIN = 2.0**-46
"""Share of a bound's terms that is not claimed: sums may be rounded otherwise on another machine."""
IMPOSSIBLE = -1
"""Takes the place of a leaf's vector where the budget has no mask left."""
LOSS = 1e-6
"""Share of a bound that single precision may cost: little beside the gaps that are asked for."""


@dataclass(frozen=True)
class OffDiagonal:
    """What splits in blocks have beside their diagonals.

    Attributes:
        pair: `[E, 2]` places of entries, the lower index first; what they connect is a block.
        cross: `[E]` these entries.
        price: `[V, pools]` of keeping an entry, at every vector.
        place: `[E]` the split that each is of, never falling. None is the first for all.
    """

    pair: NDArray[np.integer]
    cross: NDArray[np.floating]
    price: NDArray[np.floating]
    place: NDArray[np.int32] | None = None

    def counts(self, splits: int) -> NDArray[np.int64]:
        """`[Q]` entries of every split."""
        place = np.zeros(len(self.pair), np.int64) if self.place is None else self.place
        return np.bincount(place, minlength=splits)


DIAGONAL = OffDiagonal(np.zeros((0, 2), np.int32), np.zeros(0), np.zeros((0, 0)))
"""Of splits that have nothing beside their diagonals."""


@dataclass(frozen=True)
class Proof:
    """A branching tree over one block (`solvers.form.blocks.Block`) whose leaves bound its cost.

    Every inner node branches on one entry: a child where it is pruned, and one where it is kept. A leaf's
    fixings are those on its path; its claim is at most `solvers.bounds.evaluate.lower_bound` at its vector
    and fixings. The least claim bounds the block. Entries that a search fixes by scores are a chain of
    nodes with a leaf each, which share a vector.

    Subtrees may have splits of their own. A split that assumes fixings needs no more than that

        joint      `H - diag(d)` is positive semidefinite on the entries that it does not assume pruned,
                   where d > 0 (with d near 0 on kept ones it is a split of their Schur complement)
        selection  `A - diag(d)` is positive semidefinite on the entries of which it assumes nothing

    Attributes:
        rows: the problem's rows that follow the block's decisions.
        keep: `[pools]` decisions kept.
        d: `[Q, g, n]` splits, or `[g, n]` for a single one; any number where nothing is asked of it.
        entry: `[T]` decision that each node branches on, -1 for a leaf; node 0 is the root.
        pruned: `[T]` child where that decision is pruned, -1 for a leaf.
        kept: `[T]` child where it is kept, -1 for a leaf.
        vector: `[T]` the leaf's row of `u`; leaves may share one. `IMPOSSIBLE` where the fixings leave no
            mask of the budget; any number for inner nodes.
        u: `[V, g, n, c]` points at which the bound is evaluated; double precision where single has no room.
            Any number at entries that the vector's split assumes fixed: the best follows from the others.
        claim: `[T]` each leaf's bound on the block's cost; any number for inner nodes.
        root: `[Q, n]` fixings that each split assumes: 1 kept, -1 pruned, 0 free. None is zeros; the first
            split assumes nothing.
        split: `[V]` the split of each vector, whose leaves must have the fixings that it assumes. None is
            the first for all.
        blocks: the rest of splits in blocks (`solvers.bounds.groups`), of a lone joint row; a block has only
            entries that its split assumes nothing of. In all splits but the first, those of pools that are
            whole in a block count by their budgets' sets alone.
    """

    rows: NDArray[np.int64]
    keep: NDArray[np.int64]
    d: NDArray[np.floating]
    entry: NDArray[np.int32]
    pruned: NDArray[np.int32]
    kept: NDArray[np.int32]
    vector: NDArray[np.int32]
    u: NDArray[np.floating]
    claim: Array
    root: NDArray[np.int8] | None = None
    split: NDArray[np.int32] | None = None
    blocks: OffDiagonal | None = None

    @property
    def splits(self) -> NDArray[np.floating]:
        """`[Q, g, n]` splits."""
        return self.d.reshape(-1, *self.d.shape[-2:])

    @property
    def roots(self) -> NDArray[np.int8]:
        """`[Q, n]` what each split assumes."""
        return np.zeros(self.splits[:, 0].shape, np.int8) if self.root is None else self.root

    @property
    def owner(self) -> NDArray[np.int32]:
        """`[V]` the split of each vector."""
        return np.zeros(len(self.u), np.int32) if self.split is None else self.split

    @property
    def prune(self) -> int:
        """Decisions pruned."""
        return int(self.splits.shape[2]) - int(self.keep.sum())

    @property
    def bounding(self) -> NDArray[np.bool_]:
        """`[T]` the leaves that hold masks."""
        return np.asarray((self.entry < 0) & (self.vector != IMPOSSIBLE))

    @property
    def bound(self) -> float:
        """What the proof shows: the least claim."""
        return float(self.claim[self.bounding].min())


def leaf_fixings(proof: Proof, n: int) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Every leaf's node, and `[leaves, n]` what its path fixes: 1 kept, -1 pruned, 0 free."""
    nodes, fixings = np.zeros(1, np.int64), np.zeros((1, n), np.int8)
    leaves, fixed = [], []
    while len(nodes):
        inner = proof.entry[nodes] >= 0
        leaves.append(nodes[~inner])
        fixed.append(fixings[~inner])
        parents = nodes[inner]
        fixings = np.repeat(fixings[inner], 2, axis=0)
        at = np.arange(len(parents))
        fixings[2 * at, proof.entry[parents]] = -1
        fixings[2 * at + 1, proof.entry[parents]] = 1
        nodes = np.stack([proof.pruned[parents], proof.kept[parents]], axis=1).ravel().astype(np.int64)
    return np.concatenate(leaves), np.concatenate(fixed)


BlockProofs = Sequence[Proof]
"""Proofs about blocks of a reduced problem."""


@dataclass(frozen=True)
class ImagePoints:
    """Points of the images of a reduced problem whose curvature is not formed, which a bound follows from.

    Attributes:
        points: y of every image, see `solvers.bounds.factor.image.Image.lower_bound`.
    """

    points: Sequence[Array]
