"""What a proof's leaves may claim: their bounds, less a margin that covers every rounding."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from solvers.blocks import Block
from solvers.bounds.evaluate import relaxed_point
from solvers.bounds.split import Split
from solvers.certificate.proof import IMPOSSIBLE, Proof
from solvers.certificate.subtrees import completed, lift, secured
from solvers.hessian import Array

CHUNK = 1 << 20
"""Numbers in an array of one batch."""


@dataclass(frozen=True)
class Terms:
    """The numbers of a bound, and how far each may be from what it stands for.

    Attributes:
        refit: joint, or selection.
        H: `[g, n, n]`.
        H_slack: `[g, n, n]`, or None for an exact H.
        B: `[g, n, c]`.
        B_slack: `[g, n, c]`.
        constant: at most the constant of the cost.
        floor: what no decisions cost less than.
        labels: `[n]` pool of every decision, counted from 0, never falling.
    """

    refit: bool
    H: Array
    H_slack: Array | None
    B: Array
    B_slack: Array
    constant: float
    floor: float
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, block: Block) -> Terms:
        """The terms of a block, with a priori bounds on the rounding of forming them from a problem."""
        gamma = _gamma(block.n)
        if not block.refit:
            return cls(
                False, block.H, gamma * np.abs(block.H), block.B, gamma * np.abs(block.B),
                0.0, block.floor, block.labels,
            )  # fmt: skip
        size = np.abs(block.H) @ np.abs(block.W)
        constant = block.constant - gamma * float((np.abs(block.W) * size).sum())
        return cls(True, block.H, None, block.B, gamma * size, constant, block.floor, block.labels)


def prove(
    block: Block,
    d: Array,
    u: NDArray[np.floating],
    *,
    entry: NDArray[np.int32],
    pruned: NDArray[np.int32],
    kept: NDArray[np.int32],
    vector: NDArray[np.int32],
    root: NDArray[np.int8] | None = None,
    split: NDArray[np.int32] | None = None,
) -> Proof:
    """The proof that splits, a tree and its vectors make, with all its claims; see `Proof`.

    Args:
        block: what is bounded.
        d: `[g, n]` split as `solvers.bounds.split.secure` leaves it; or `[Q, g, n]`, the others of what
            they leave free only: joint ones of the Schur complement of what they assume kept.
        u: `[V, g, n, c]` vectors; they are rounded first, as a bound holds for any.
        entry: `[T]` decision branched on, -1 for a leaf.
        pruned: `[T]` child where it is pruned.
        kept: `[T]` child where it is kept.
        vector: `[T]` row of u at a leaf, or `IMPOSSIBLE`.
        root: `[Q, n]` what each split assumes, 1 kept, -1 pruned, 0 nothing; the first assumes nothing.
        split: `[V]` split of each vector; the first by default.

    Raises:
        ValueError: if a curvature is too close to singular for a certified split.
    """
    vector = np.where(entry < 0, vector, IMPOSSIBLE).astype(np.int32)
    empty = np.full(len(entry), -np.inf)
    proof = Proof(block.rows, block.keep, d, entry, pruned, kept, vector, rounded(u), empty, root, split)
    if root is not None and root.any():
        lifted = lift(d, root) if block.refit else d
        proof = replace(proof, d=secured(block.H, lifted, root, block.refit))
    return replace(proof, claim=claims(Terms.of(block), proof))


def root_proof(block: Block, split: Split) -> Proof:
    """The proof without branching: the bound of a split at its relaxed point."""
    leaf, none = np.zeros(1, np.int32), np.full(1, -1, np.int32)
    u = relaxed_point(block, split.d, split.z)[None]
    return prove(block, split.d, u, entry=none, pruned=none, kept=none, vector=leaf)


def rounded(u: NDArray[np.floating]) -> NDArray[np.floating]:
    """Vectors in single precision, if their largest entries have room there; else as they are."""
    largest = np.abs(u).reshape(len(u), -1).max(axis=1, initial=0.0)
    narrow = ((largest == 0.0) | ((largest > 2.0**-80) & (largest < 2.0**120))).all()
    return np.asarray(u, dtype=np.float32 if narrow else np.float64)


def claims(terms: Terms, proof: Proof) -> Array:
    """`[T]` what each leaf may claim; minus infinity for inner nodes and impossible leaves."""
    out = np.full(len(proof.entry), -np.inf)
    leaves, fixings = leaf_fixings(proof, len(terms.labels))
    vectors = proof.vector[leaves]
    order = np.argsort(vectors, kind="stable")
    ends = np.searchsorted(vectors[order], np.arange(len(proof.u) + 1))
    size = max(1, CHUNK // int(np.prod(proof.u.shape[1:])))
    for start in range(0, len(proof.u), size):
        base, score = points(terms, proof, slice(start, start + size))
        mine = order[ends[start] : ends[start + len(base)]]
        step = max(1, CHUNK // len(terms.labels))
        for i in range(0, len(mine), step):
            some = mine[i : i + step]
            at = vectors[some] - start
            out[leaves[some]] = _bounds(terms, proof.keep, base[at], score[at], fixings[some])
    return out


def root_curve(terms: Terms, proof: Proof) -> Array:
    """`[n + 1]` bounds at the root's vector for every pruned count, of a block with one pool."""
    base, score = points(terms, proof, slice(proof.vector[0], proof.vector[0] + 1))
    n = len(terms.labels)
    ranked = np.sort(score[0])[::-1] if terms.refit else np.sort(score[0])
    total = np.concatenate([[0.0], np.cumsum(ranked)])
    size = np.concatenate([[0.0], np.cumsum(np.abs(ranked))])
    low = _low(terms, np.repeat(base, n + 1), total, size)
    if terms.refit:
        return low[::-1]
    low[0] = max(low[0], terms.constant)
    return low


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


def points(terms: Terms, proof: Proof, some: slice) -> tuple[Array, Array]:
    """Each vector's part of the bound: `base [V]` from below, `score [V, n]` on the pessimistic side.

    As in `solvers.bounds.evaluate.lower_bound`, for many vectors at once. What a vector's split assumes is
    completed (joint), or goes into constant and linear terms (selection): `-b` becomes `A 1_P - b` and the
    constant `1/2 1_P'A 1_P - b'1_P`.
    """
    owner, root = proof.owner[some], proof.roots
    u = proof.u[some].astype(np.float64)
    d, assumed = proof.splits[owner], root[owner]
    if terms.refit:
        u = completed(terms.H, terms.B, root, owner, u)
        return _joint_points(terms, np.where((assumed < 0)[:, None], 1.0, d), u)
    free = assumed == 0
    base, score = _selection_points(
        terms, np.where(free, d[:, 0], 0.0), np.where(free, u[:, 0, :, 0], 0.0), assumed
    )
    return base, np.where(free, score, 0.0)


def _joint_points(terms: Terms, d: Array, u: Array) -> tuple[Array, Array]:
    count, g, n, c = u.shape
    gamma = _gamma(n * c)
    base, score = np.full(count, terms.constant), np.zeros((count, n))
    for i in range(g):
        y, error, point = _image(terms, i, d[:, i], u[:, i])
        base -= 0.5 * ((point * y).sum(axis=(0, 2)) + 2.0 * (np.abs(point) * error).sum(axis=(0, 2)))
        q = np.abs(terms.B[i][:, None, :] - y) + error + terms.B_slack[i][:, None, :]
        score += (1.0 + gamma) * (q * q).sum(axis=2).T / (2.0 * d[:, i])
    return base, score


def _selection_points(terms: Terms, d: Array, u: Array, assumed: NDArray[np.int8]) -> tuple[Array, Array]:
    gamma = _gamma(terms.H.shape[1])
    y, error, point = (part[:, :, 0] for part in _image(terms, 0, d, u[:, :, None]))
    ones = (assumed < 0).astype(np.float64).T
    pull, size = terms.H[0] @ ones, np.abs(terms.H[0]) @ ones
    c, c_slack = terms.B[0], terms.B_slack[0]
    slack = gamma * size if terms.H_slack is None else gamma * size + terms.H_slack[0] @ ones
    constant = terms.constant + (
        ones * (0.5 * pull - c - (1.0 + gamma) * (slack + c_slack + gamma * np.abs(c)))
    ).sum(axis=0)
    base = constant - 0.5 * ((point * y).sum(axis=0) + 2.0 * (np.abs(point) * error).sum(axis=0))
    t = y + 0.5 * d.T + pull - c
    return base, (t - error - slack - c_slack - gamma * (np.abs(d.T) + np.abs(c) + np.abs(t))).T


def _image(terms: Terms, i: int, d: Array, u: Array) -> tuple[Array, Array, Array]:
    """`(H_i - diag(d)) u`, how far it may be off, and u: all `[n, V, c]`, for `d [V, n]`, `u [V, n, c]`."""
    count, n, c = u.shape
    point = u.transpose(1, 0, 2)
    flat = point.reshape(n, count * c)
    move = (d.T[:, :, None] * point).reshape(n, count * c)
    error = _gamma(n) * (np.abs(terms.H[i]) @ np.abs(flat) + np.abs(move))
    if terms.H_slack is not None:
        error += terms.H_slack[i] @ np.abs(flat)
    y = terms.H[i] @ flat - move
    return y.reshape(n, count, c), error.reshape(n, count, c), point


def _bounds(
    terms: Terms, keep: NDArray[np.int64], base: Array, score: Array, fixings: NDArray[np.int8]
) -> Array:
    take, mark = (keep, 1) if terms.refit else (np.bincount(terms.labels, minlength=len(keep)) - keep, -1)
    inside = fixings == mark
    total = np.where(inside, score, 0.0).sum(axis=1)
    size = np.where(inside, np.abs(score), 0.0).sum(axis=1)
    possible = np.ones(len(base), dtype=bool)
    for p, wanted in enumerate(take.tolist()):
        pool = terms.labels == p
        left = wanted - inside[:, pool].sum(axis=1)
        free = fixings[:, pool] == 0
        possible &= (left >= 0) & (left <= free.sum(axis=1))
        cost = -score[:, pool] if terms.refit else score[:, pool]
        ranked = np.sort(np.where(free, cost, np.inf), axis=1)
        chosen = np.where(np.arange(ranked.shape[1]) < left[:, None], ranked, 0.0)
        total += np.abs(chosen).sum(axis=1) if terms.refit else chosen.sum(axis=1)
        size += np.abs(chosen).sum(axis=1)
    low = _low(terms, base, np.where(possible, total, 0.0), np.where(possible, size, 0.0))
    if not terms.refit and not take.any():
        low = np.maximum(low, terms.constant)
    return np.where(possible, low, np.inf)


def _low(terms: Terms, base: Array, total: Array, size: Array) -> Array:
    low = base - total if terms.refit else base + total
    around = np.abs(base) + abs(terms.constant)
    margin = _gamma(len(terms.labels)) * size + 8.0 * len(terms.H) * np.finfo(float).eps * around
    return np.asarray(np.maximum(low - margin - 1e-300, terms.floor))


def _gamma(n: int) -> float:
    """Rounding of sums of n products, several times over: the checker has to round too."""
    return 4.0 * (n + 8) * float(np.finfo(float).eps)
