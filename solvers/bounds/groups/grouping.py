"""Where splits in blocks start, and which entries of a row belong into one block."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from solvers.bounds.evaluate import relaxed_point
from solvers.bounds.groups.split import Family, GroupSplit
from solvers.bounds.groups.states import Index
from solvers.form.blocks import Block
from solvers.hessian import Array


def start(block: Block, d: Array, z: Array) -> GroupSplit:
    """Every entry alone, inside a diagonal split `d [n]`, at the point of its indicators `z [n]`."""
    H, b = block.H[0], block.B[0, :, 0]
    d = 0.95 * d
    v = relaxed_point(block, d[None], z)[0, :, 0]
    q = b - H @ v + d * v
    scores = q * q / (2.0 * d)
    prices = []
    for p, keep in enumerate(block.keep.tolist()):
        ranked = np.sort(np.append(scores[block.labels == p], 0.0))[::-1]
        prices.append(0.5 * (ranked[max(keep - 1, 0)] + ranked[keep]))
    alone = Family(np.arange(block.n)[:, None], d[:, None, None])
    return GroupSplit((alone,), q, np.array(prices))


def joined(split: GroupSplit, groups: list[Index]) -> GroupSplit:
    """A diagonal split as one of groups."""
    d = np.empty(len(split.q))
    for family in split.families:
        d[family.members[:, 0]] = family.D[:, 0, 0]
    families = []
    for count in sorted({len(group) for group in groups}):
        members = np.array([group for group in groups if len(group) == count])
        families.append(Family(members, d[members][:, :, None] * np.eye(count)))
    return replace(split, families=tuple(families))


def cluster(M: Array, labels: Index, size: int) -> list[Index]:
    """Groups of at most `size` inputs of one pool (a power of two), the most correlated together.

    Greedy matching on `M_ij^2 / (M_ii M_jj)`, then again between what has been matched. What is
    correlated with nothing stays alone.

    Args:
        M: `[n, n]` positive definite.
        labels: `[n]` pools.
        size: inputs of a group at most.
    """
    root = np.sqrt(np.diagonal(M))
    C = (M / root[:, None] / root[None, :]) ** 2
    C[labels[:, None] != labels[None, :]] = 0.0
    groups = [np.array([i]) for i in range(len(M))]
    while len(groups[0]) < size and max(map(len, groups)) < size:
        E = np.zeros((len(groups), len(M)))
        for k, group in enumerate(groups):
            E[k, group] = 1.0 / np.sqrt(len(group))
        worth = E @ C @ E.T
        rows, columns = np.triu_indices(len(groups), 1)
        order = np.argsort(-worth[rows, columns], kind="stable")
        order = order[worth[rows, columns][order] > 0.0]
        taken = np.zeros(len(groups), dtype=bool)
        merged = []
        for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
            if not (taken[i] or taken[j]):
                taken[i] = taken[j] = True
                merged.append(np.concatenate([groups[i], groups[j]]))
        if not merged:
            break
        groups = merged + [group for group, done in zip(groups, taken, strict=True) if not done]
    return groups
