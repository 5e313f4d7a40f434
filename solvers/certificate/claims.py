"""What a proof's leaves may claim: their bounds, less a margin that covers every rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.evaluate import relaxed_point
from solvers.bounds.split import Split
from solvers.certificate.groups import grouped_claims
from solvers.certificate.points import Terms, lift, points, rounded, rounding, secured
from solvers.certificate.proof import IMPOSSIBLE, LOSS, Proof, leaf_fixings
from solvers.form.blocks import Block
from solvers.hessian import Array

CHUNK = 1 << 20
"""Numbers in an array of one batch."""


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
    exactly: Callable[[slice], Array] | None = None,
) -> Proof:
    """The proof that splits, a tree and its vectors make, with all its claims; see `Proof`.

    Args:
        block: what is bounded.
        d: `[g, n]` split as `solvers.bounds.split.secure` leaves it; or `[Q, g, n]`, the others of what
            they leave free only: joint ones of the Schur complement of what they assume kept.
        u: `[V, g, n, c]` vectors; they are rounded to single precision, as a bound holds for any, unless
            that costs more than `LOSS`.
        entry: `[T]` decision branched on, -1 for a leaf.
        pruned: `[T]` child where it is pruned.
        kept: `[T]` child where it is kept.
        vector: `[T]` row of u at a leaf, or `IMPOSSIBLE`.
        root: `[Q, n]` what each split assumes, 1 kept, -1 pruned, 0 nothing; the first assumes nothing.
        split: `[V]` split of each vector; the first by default.
        exactly: gives some of the vectors in double precision, where u has them in single.

    Raises:
        ValueError: if a curvature is too close to singular for a certified split.
    """
    vector = np.where(entry < 0, vector, IMPOSSIBLE).astype(np.int32)
    empty = np.full(len(entry), -np.inf)
    proof = Proof(block.rows, block.keep, d, entry, pruned, kept, vector, rounded(u), empty, root, split)
    if root is not None and root.any():
        lifted = lift(d, root) if block.refit else d
        proof = replace(proof, d=secured(block.H, lifted, root, block.refit))
    terms = Terms.of(block)
    proof = replace(proof, claim=claims(terms, proof))
    exact = (lambda some: u[some].astype(np.float64)) if exactly is None else exactly
    if proof.bounding.any() and _least_claim(terms, proof, exact) - proof.bound > LOSS * abs(proof.bound):
        proof = replace(proof, u=exact(slice(None)))
        proof = replace(proof, claim=claims(terms, proof))
    return proof


def _least_claim(terms: Terms, proof: Proof, exact: Callable[[slice], Array]) -> float:
    """What the leaf of least claim may claim for its vector as it is: then the proof shows no more."""
    inner = np.flatnonzero(proof.entry >= 0)
    parent = np.zeros(len(proof.entry), np.int64)
    parent[proof.pruned[inner]] = parent[proof.kept[inner]] = inner
    node = leaf = int(np.argmin(np.where(proof.bounding, proof.claim, np.inf)))
    fixings = np.zeros((1, len(terms.labels)), np.int8)
    while node:
        up = int(parent[node])
        fixings[0, proof.entry[up]] = -1 if proof.pruned[up] == node else 1
        node = up
    some = slice(int(proof.vector[leaf]), int(proof.vector[leaf]) + 1)
    alone = replace(proof, u=exact(some), split=proof.owner[some])
    base, score = points(terms, alone, slice(0, 1))
    return float(_bounds(terms, proof.keep, base, score, fixings)[0])


def root_proof(block: Block, split: Split) -> Proof:
    """The proof without branching: the bound of a split at its relaxed point."""
    leaf, none = np.zeros(1, np.int32), np.full(1, -1, np.int32)
    u = relaxed_point(block, split.d, split.z)[None]
    return prove(block, split.d, u, entry=none, pruned=none, kept=none, vector=leaf)


def plain_proof(block: Block) -> Proof:
    """The proof without branching by a split in proportion to the diagonal, which needs no search.

    Joint: at `u = w` it proves `1/2 d_i w_i^2` for what is pruned, a bound that is weak, and holds as long
    as there is any split at all.
    """
    diagonal = np.diagonal(block.H, axis1=1, axis2=2)
    size = np.where(diagonal > 0.0, diagonal, diagonal.max(initial=0.0) or 1.0)
    root = np.sqrt(size)
    low = np.linalg.eigvalsh(block.H / (root[:, :, None] * root[:, None, :]))[:, :1]
    share = 0.5 * np.maximum(low, np.finfo(float).eps) if block.refit else low - 1e-12 * block.n
    leaf, none = np.zeros(1, np.int32), np.full(1, -1, np.int32)
    u = block.W[None] if block.refit else np.zeros((1, *block.B.shape))
    return prove(block, share * size, u, entry=none, pruned=none, kept=none, vector=leaf)


def claims(terms: Terms, proof: Proof) -> Array:
    """`[T]` what each leaf may claim; minus infinity for inner nodes and impossible leaves."""
    if proof.blocks is not None:
        return grouped_claims(terms, proof)
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
    margin = rounding(len(terms.labels)) * size + 8.0 * len(terms.H) * np.finfo(float).eps * around
    return np.asarray(np.maximum(low - margin - 1e-300, terms.floor))
