"""Which entries of a row are put into groups: the correlated ones, pool by pool or in whole pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import comb

import numpy as np

from solvers.bounds.groups.split import Family, GroupSplit
from solvers.bounds.groups.states import Index, Pattern
from solvers.form.blocks import Block
from solvers.hessian import Array

SWAPS = 2
"""Swaps between groups, a time the entries."""
SHARE = 0.8
"""Of a diagonal split, what is taken off the curvature to see which inputs belong together."""
STATES = 1300
"""States of a group of several pools at most: four pools of 2:4 have 1,296."""


def correlated(block: Block, d: Array, size: int) -> list[Index]:
    """Groups of at most `size` inputs (a power of two) that are correlated in what a diagonal split leaves.

    The multipliers of a path, with every entry alone, show less: splits in their groups leave up to a fourth
    more of the gap.

    Args:
        block: the row.
        d: `[n]` its diagonal split.
        size: entries of a group at most.
    """
    return clusters(np.linalg.inv(block.H[0] - np.diag(SHARE * d)), block, size)


def clusters(M: Array, block: Block, size: int) -> list[Index]:
    """Groups of at most `size` entries of a row (a power of two), those that M correlates together.

    What is measured is `M_ij^2 / (M_ii M_jj)`. Pools of several that fit are left whole, and as many are put
    into a group as fit; others are divided into groups.

    Args:
        M: `[n, n]` positive definite.
        block: the row.
        size: entries of a group at most.
    """
    root = np.sqrt(np.diagonal(M))
    C = (M / root[:, None] / root[None, :]) ** 2
    sizes = np.bincount(block.labels, minlength=len(block.keep))
    fit = (sizes <= size) & (len(sizes) > 1)
    parts, groups = np.flatnonzero(~fit[block.labels]), []
    if len(parts):
        groups += [parts[at] for at in cluster(C[np.ix_(parts, parts)], block.labels[parts], size)]
    pools = [np.flatnonzero(block.labels == p) for p in np.flatnonzero(fit)]
    if pools:
        together = size // max(map(len, pools))
        most = max(comb(len(pool), int(block.keep[block.labels[pool[0]]])) for pool in pools)
        while together > 1 and (together & together - 1 or most**together > STATES):
            together -= 1
        E = np.zeros((len(pools), block.n))
        for k, pool in enumerate(pools):
            E[k, pool] = 1.0
        of_pools = cluster(E @ C @ E.T, np.zeros(len(pools), np.int64), together)
        groups += [np.concatenate([pools[k] for k in group]) for group in of_pools]
    return groups


def pattern_of(members: Index, labels: Index, keep: Index) -> Pattern:
    """What a group is made of, where that is whole pools of several; else nothing.

    Args:
        members: `[s]` entries, those of a pool side by side.
        labels: `[n]` pools of a row's entries.
        keep: `[pools]`.
    """
    pools, first, own = np.unique(labels[members], return_index=True, return_counts=True)
    sizes = np.bincount(labels, minlength=len(keep))[pools]
    wanted = keep[pools]
    if len(keep) == 1 or (sizes != own).any() or (wanted == 0).any() or (wanted == sizes).any():
        return ()
    order = np.argsort(first)
    return tuple(zip(sizes[order].tolist(), wanted[order].tolist(), strict=True))


def joined(block: Block, split: GroupSplit, groups: Sequence[Index]) -> GroupSplit:
    """A diagonal split of a row as one of groups, of which those of whole pools have only their states."""
    d = np.empty(len(split.q))
    for family in split.families:
        d[family.members[:, 0]] = family.D[:, 0, 0]
    patterns = [pattern_of(group, block.labels, block.keep) for group in groups]
    kinds = [(len(group), pattern) for group, pattern in zip(groups, patterns, strict=True)]
    families, t = [], split.t.copy()
    for kind in sorted(set(kinds)):
        count, pattern = kind
        members = np.array([group for group, its in zip(groups, kinds, strict=True) if its == kind])
        families.append(Family(members, d[members][:, :, None] * np.eye(count), pattern))
        if pattern:
            t[block.labels[members]] = 0.0
    return replace(split, families=tuple(families), t=t)


def cluster(C: Array, labels: Index, size: int) -> list[Index]:
    """Groups of at most `size` entries of one pool (a power of two), those of large C together.

    Greedy matching, then again between what has been matched, and at last swaps of two entries, the best
    first, as long as groups gain by them. What C gives nothing stays alone.

    Args:
        C: `[n, n]` symmetric, not negative.
        labels: `[n]` pools.
        size: entries of a group at most.
    """
    C = np.where(labels[:, None] == labels[None, :], C, 0.0)
    C[np.diag_indices(len(C))] = 0.0
    groups = [np.array([i]) for i in range(len(C))]
    while len(groups[0]) < size and max(map(len, groups)) < size:
        E = np.zeros((len(groups), len(C)))
        for k, group in enumerate(groups):
            E[k, group] = 1.0 / np.sqrt(len(group))
        worth = E @ C @ E.T
        rows, columns = np.triu_indices(len(groups), 1)
        order = np.argsort(-worth[rows, columns], kind="stable")
        lengths = np.array([len(group) for group in groups])
        fits = lengths[rows] + lengths[columns] <= size
        order = order[(fits & (worth[rows, columns] > 0.0))[order]]
        taken = np.zeros(len(groups), dtype=bool)
        merged = []
        for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
            if not (taken[i] or taken[j]):
                taken[i] = taken[j] = True
                merged.append(np.concatenate([groups[i], groups[j]]))
        if not merged:
            break
        groups = merged + [group for group, done in zip(groups, taken, strict=True) if not done]
    return swapped(groups, C, labels)


def swapped(groups: list[Index], C: Array, labels: Index) -> list[Index]:
    """Groups after the best swaps of two entries of one pool, until the sums of C within them don't rise.

    Args:
        groups: of all entries.
        C: `[n, n]` symmetric, zero on the diagonal and across pools.
        labels: `[n]` pools.
    """
    n, own = len(C), np.empty(len(C), dtype=np.int64)
    for k, group in enumerate(groups):
        own[group] = k
    barred, entries_ = labels[:, None] != labels[None, :], np.arange(n)
    within = np.zeros((n, len(groups)))
    within[entries_, own] = 1.0
    pull = C @ within  # of every entry, by every group
    for _ in range(SWAPS * n):
        gain = pull[:, own] - pull[entries_, own][:, None]
        gain = gain + gain.T - 2.0 * C
        gain[barred | (own[:, None] == own[None, :])] = 0.0
        i, j = (int(k) for k in np.unravel_index(np.argmax(gain), gain.shape))
        if gain[i, j] <= 1e-9 * float(pull.max()):
            break
        a, b = int(own[i]), int(own[j])
        own[i], own[j] = b, a
        pull[:, a] += C[:, j] - C[:, i]
        pull[:, b] += C[:, i] - C[:, j]
    return [np.flatnonzero(own == k) for k in range(len(groups))]
