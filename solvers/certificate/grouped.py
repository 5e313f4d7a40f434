"""Proofs by splits in blocks (`solvers.bounds.groups`): without branching, with prices of the budget."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.groups.split import Family, GroupSplit, best_states, relaxed, secure_groups
from solvers.certificate.points import Terms, rounded, rounding
from solvers.certificate.proof import OffDiagonal, Proof
from solvers.form.blocks import Block
from solvers.hessian import Array


def group_proof(block: Block, split: GroupSplit) -> Proof:
    """The proof that a secured split in blocks of a lone joint row makes.

    Raises:
        ValueError: if no block has more than one entry: a diagonal split proves more.
    """
    d, blocks = _written(split)
    if not len(blocks.pair):
        raise ValueError("split has no blocks of several entries; use root_proof")
    u = relaxed(split.remainder(block.H[0]), block.B[0, :, 0] - split.q)
    leaf, none = np.zeros(1, np.int32), np.full(1, -1, np.int32)
    proof = Proof(
        block.rows, block.keep, d, none, none, none, leaf, rounded(u[None, None, :, None]), np.zeros(1),
        blocks=blocks,
    )  # fmt: skip
    return replace(proof, claim=np.array([grouped_claims(Terms.of(block), proof, block.keep[None])[0]]))


def as_split(proof: Proof) -> GroupSplit:
    """The split of a proof, its point left out."""
    assert proof.blocks is not None
    n = proof.splits.shape[2]
    D = np.diag(proof.splits[0, 0])
    i, j = proof.blocks.pair.T
    D[i, j] = D[j, i] = proof.blocks.cross
    group = np.arange(n)
    for a, b in proof.blocks.pair.tolist():
        group[group == group[b]] = group[a]
    members: dict[int, list[list[int]]] = {}
    for root in np.unique(group):
        these = np.flatnonzero(group == root).tolist()
        members.setdefault(len(these), []).append(these)
    families = [Family(at, D[at[:, :, None], at[:, None, :]]) for at in map(np.array, members.values())]
    return GroupSplit(tuple(families), np.zeros(n), proof.blocks.price)


def resecured(proof: Proof, H: Array, slack: Array) -> Proof:
    """A proof whose split holds for a curvature `[n, n]` that is known up to `slack`."""
    assert proof.blocks is not None
    d, blocks = _written(secure_groups(H, as_split(proof), slack))
    return replace(proof, d=d, blocks=blocks)


def _written(split: GroupSplit) -> tuple[Array, OffDiagonal]:
    """`[1, n]` the diagonal of D, and the rest."""
    d = np.empty((1, len(split.q)))
    pairs, cross = [np.zeros((0, 2), np.int32)], [np.zeros(0)]
    for family in split.families:
        d[0, family.members] = np.diagonal(family.D, axis1=1, axis2=2)
        for i, j in combinations(range(family.members.shape[1]), 2):
            pairs.append(np.sort(family.members[:, [i, j]], axis=1).astype(np.int32))
            cross.append(family.D[:, i, j])
    return d, OffDiagonal(np.concatenate(pairs), np.concatenate(cross), split.t)


def grouped_claims(terms: Terms, proof: Proof, keep: NDArray[np.int64]) -> Array:
    """`[K]` what the proof's point shows for budgets `keep [K, pools]`, less a margin for every rounding."""
    split = as_split(proof)
    H, u = terms.H[0], proof.u[0, 0, :, 0].astype(np.float64)
    n, gamma = len(u), rounding(len(terms.labels))
    R = split.remainder(H)
    y = R @ u
    size = (2.0 * np.abs(H) + np.abs(R)) @ np.abs(u)
    error = gamma * size
    if terms.H_slack is not None:
        error = error + terms.H_slack[0] @ np.abs(u)
    q = terms.B[0, :, 0] - y
    taken, around = best_states(split, q, error + terms.B_slack[0, :, 0] + gamma * np.abs(q), terms.labels)
    base = terms.constant - 0.5 * float(u @ y) - float(np.abs(u) @ error)
    around += abs(terms.constant) + 0.5 * float(np.abs(u) @ np.abs(y))
    budget = keep @ split.t
    margin = gamma * (around + keep @ np.abs(split.t)) + 8.0 * n * np.finfo(float).eps * np.abs(base - taken)
    return np.asarray(np.maximum(base - taken - budget - margin - 1e-300, terms.floor))
