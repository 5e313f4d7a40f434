"""The proof that a tree of splits in groups leaves behind: kept while it runs, for others to check.

A record is the search's tree, its splits, and the point and price of every bound that was found. What a
bound leaves an entry no choice about is a branching, too: the side that is given up is a leaf, bounded by
the same split with the entry fixed. A node's bound holds for its children until theirs are better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.bounds.evaluate import relaxed_point
from solvers.bounds.groups.split import Family, GroupSplit, relaxed
from solvers.bounds.split import Split
from solvers.certificate import IMPOSSIBLE, Proof, prove, prove_in_groups
from solvers.exact.grouped.open_node import Named, cut
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.problem import Mask

MAKING = 4
"""Times the memory of its splits that a proof takes while it is made and checked."""
NODE_BYTES = 200
"""Memory of a node of the tree, also while the proof is made."""


class Record:
    """What a search has shown so far; `plant` begins one, and `restore` goes on with one of a checkpoint.

    Args:
        block: a lone joint row.

    Attributes:
        bytes: memory that it takes, with the proof that is made of it.
    """

    def __init__(self, block: Block) -> None:
        self.block, self.bytes = block, 0
        self._tree: list[list[int]] = []
        self._splits: list[tuple[NDArray[np.int8], Sequence[Family]]] = []
        self._vectors: list[tuple[int, Array, Array]] = []

    def plant(self, split: Split) -> None:
        """Begin with a leaf of all masks that has the bound of a diagonal split, at its relaxation."""
        n, d = self.block.n, split.d[0]
        alone = Family(np.arange(n)[:, None], d[:, None, None])
        q = self._residuals(d, relaxed_point(self.block, split.d, split.z)[0, :, 0])
        score = q * q / (2.0 * d)
        t = np.array(
            [
                np.sort(score[self.block.labels == p])[-max(keep, 1)]
                for p, keep in enumerate(self.block.keep.tolist())
            ]
        )
        self._leaf(self.add(np.zeros(n, np.int8), GroupSplit((alone,), q, t)))

    def add(self, fix: NDArray[np.int8], split: GroupSplit) -> int:
        """Keep a split of what fixings leave free, with its bound; the number of that bound.

        Args:
            fix: `[n]` fixings.
            split: of the entries that they leave free, with prices of the pools that have any.
        """
        self._split(fix.copy(), split.families)
        t = np.zeros(len(self.block.keep))
        t[np.unique(self.block.labels[fix == 0])] = split.t
        return self._vector(len(self._splits) - 1, split.q, t)

    def bound(self, at: int, vector: int) -> None:
        """Let a leaf have a bound that was kept."""
        self._tree[at][3] = vector

    def mask(self, at: int, pruned: Mask) -> None:
        """Let a leaf that holds one mask have what that costs.

        With `H_KK u_K = b_K` on the kept entries K, and u zero elsewhere, the bound at u is the cost.
        """
        H, b, kept = self.block.H[0], self.block.B[0, :, 0], np.flatnonzero(~pruned)
        u = np.zeros(len(b))
        u[kept] = scipy.linalg.solve(H[np.ix_(kept, kept)], b[kept], assume_a="pos")
        self.bound(at, self._vector(0, self._residuals(self._first, u), np.zeros(len(self.block.keep))))

    def branch(self, at: int, entry: int) -> tuple[int, int]:
        """The leaves where an entry of a leaf is pruned, and kept; they have its bound."""
        pruned, kept = (self._leaf(self._tree[at][3]) for _ in range(2))
        self._tree[at][:3] = [entry, pruned, kept]
        return pruned, kept

    def fix(self, at: int, before: NDArray[np.int8], after: NDArray[np.int8], vector: int) -> int:
        """Branch on all that is fixed after and was not before: the leaf where it is so.

        Args:
            at: a leaf.
            before: `[n]` its fixings.
            after: `[n]` those, and others.
            vector: the bound of the sides that are given up, or `IMPOSSIBLE` where these have no mask.
        """
        for entry in np.flatnonzero(before != after).tolist():
            pruned, kept = self.branch(at, entry)
            at, other = (kept, pruned) if after[entry] > 0 else (pruned, kept)
            self.bound(other, vector)
        return at

    def proof(self) -> Proof:
        """The proof so far, without the splits and bounds that no leaf has."""
        entry, pruned, kept, vector = np.array(self._tree, np.int32).T.copy()
        leaves = (entry < 0) & (vector != IMPOSSIBLE)
        used, vector[leaves] = np.unique(vector[leaves], return_inverse=True)
        some = [self._vectors[v] for v in used.tolist()]
        tree = {"entry": entry, "pruned": pruned, "kept": kept, "vector": vector}
        names, split = np.unique([which for which, _, _ in some], return_inverse=True)
        if not names.any():  # the diagonal split alone
            R = self.block.H[0] - np.diag(self._first)
            u = np.array([relaxed(R, self.block.B[0, :, 0] - q) for _, q, _ in some])
            return prove(self.block, self._first[None], u[:, None, :, None], **tree)
        splits = [self._splits[k] for k in names.tolist()]
        vectors = [(int(k), q, t) for k, (_, q, t) in zip(split, some, strict=True)]
        return prove_in_groups(self.block, self._first[None], splits, vectors, **tree)

    def arrays(self) -> Named:
        """All of it by name, for a checkpoint."""
        families = [(k, family) for k, (_, several) in enumerate(self._splits) for family in several]
        which, residuals, prices = zip(*self._vectors, strict=True)
        return {
            "proof tree": np.array(self._tree, np.int32),
            "proof root": np.array([root for root, _ in self._splits]),
            "proof family": np.array([(k, *family.members.shape) for k, family in families], np.int64),
            "proof members": np.concatenate([family.members.ravel() for _, family in families]),
            "proof block": np.concatenate([family.D.ravel() for _, family in families]),
            "proof split": np.array(which, np.int64),
            "proof residual": np.concatenate(residuals),
            "proof price": np.array(prices),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Record:
        """Take what `arrays` gave; returns the record itself.

        Args:
            arrays: beside those, the open nodes' leaves, `at`.

        Raises:
            ValueError: for arrays that no record of this block can have left.
        """
        tree, roots, family, split, prices = (
            arrays[f"proof {name}"] for name in ("tree", "root", "family", "split", "price")
        )
        n, pools = self.block.n, len(self.block.keep)
        if tree.shape[1:] != (4,) or roots.shape[1:] != (n,) or prices.shape != (len(split), pools):
            raise ValueError("its proof's arrays have other shapes")
        ends = (n, len(tree), len(tree), len(split))
        nodes = arrays["at"]
        if not len(tree) or ((tree < -1) | (tree >= ends)).any() or family.shape[1:] != (3,):
            raise ValueError("its proof's nodes point nowhere")
        if ((nodes < 0) | (nodes >= len(tree))).any() or (tree[nodes, 0] >= 0).any():
            raise ValueError("its open nodes are no leaves of its proof")
        if ((split < 0) | (split >= len(roots))).any():
            raise ValueError("its proof's bounds point nowhere")
        free = (roots == 0).sum(axis=1)
        count, size = family[:, 1], family[:, 2]
        if np.bincount(family[:, 0], count * size, len(roots)).tolist() != free.tolist():
            raise ValueError("its proof's groups hold other entries")
        several: list[list[Family]] = [[] for _ in roots]
        members, blocks = arrays["proof members"], arrays["proof block"]
        for (k, B, s), at, D in zip(
            family.tolist(), cut(members, count * size), cut(blocks, count * size * size), strict=True
        ):
            several[k].append(Family(at.reshape(B, s), D.reshape(B, s, s)))
        for k, each in enumerate(several):
            if sorted(np.concatenate([f.members.ravel() for f in each]).tolist()) != list(range(free[k])):
                raise ValueError("its proof's groups hold other entries")
        self._tree = tree.tolist()
        self.bytes = NODE_BYTES * len(tree)
        for root, each in zip(roots, several, strict=True):
            self._split(root, each)
        for k, q, t in zip(split.tolist(), cut(arrays["proof residual"], free[split]), prices, strict=True):
            self._vector(k, q, t)
        return self

    @property
    def _first(self) -> Array:
        """`[n]` the diagonal split."""
        return self._splits[0][1][0].D[:, 0, 0]

    def _residuals(self, d: Array, u: Array) -> Array:
        """`b - (H - diag(d)) u`."""
        return np.asarray(self.block.B[0, :, 0] - self.block.H[0] @ u + d * u)

    def _leaf(self, vector: int) -> int:
        self._tree.append([-1, -1, -1, vector])
        self.bytes += NODE_BYTES
        return len(self._tree) - 1

    def _split(self, root: NDArray[np.int8], families: Sequence[Family]) -> None:
        self._splits.append((root, families))
        self.bytes += root.nbytes + MAKING * sum(
            family.members.nbytes + family.D.nbytes for family in families
        )

    def _vector(self, split: int, q: Array, t: Array) -> int:
        self._vectors.append((split, q, t))
        self.bytes += MAKING * q.nbytes
        return len(self._vectors) - 1
