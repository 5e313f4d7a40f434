"""What a node's split leaves to its children: smaller groups, joined anew, and a point to start from.

A split `H = R + D` of a row stays one when entries are fixed. A pruned entry leaves its group, and a kept one
is eliminated: the Schur complement of a sum is at least the sum of the Schur complements, so that those of
D's blocks are a split of that of H.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.bounds.groups.barrier import central
from solvers.bounds.groups.split import Family, GroupSplit
from solvers.bounds.groups.states import Index, States, counts, kept_by
from solvers.form.blocks import Block
from solvers.hessian import Array

SPREAD = 1e-7
"""Share of a group's weights that states without weight get, so that all of it can be inverted."""


@dataclass(frozen=True)
class Group:
    """A group of a split.

    Attributes:
        members: `[s]` entries.
        D: `[s, s]` its block.
        share: `[2^s]` of every state in the relaxation; they add up to one.
    """

    members: Index
    D: Array
    share: Array

    @property
    def kept(self) -> Array:
        """`[s]` the share of every entry that is kept."""
        return np.asarray(self.share @ kept_by(len(self.members)))


@dataclass(frozen=True, eq=False)
class Seed:
    """What a relaxation leaves to the nodes below it.

    Attributes:
        free: `[f]` the entries that it left free.
        groups: its groups, in their numbering.
        t: `[pools]` its prices.
    """

    free: NDArray[np.int64]
    groups: list[Group]
    t: Array

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        arrays = [array for group in self.groups for array in (group.members, group.D, group.share)]
        return self.free.nbytes + self.t.nbytes + sum(array.nbytes + 100 for array in arrays)


def groups_of(block: Block, split: GroupSplit, T: float) -> tuple[list[Group], Array]:
    """The groups of a split, with the states' shares on the central path at T, and its prices."""
    out = []
    for family in split.families:
        size = family.members.shape[1]
        price = split.t[block.labels[family.members[:, 0]]]
        scores = States.of(family.D, split.q[family.members]).h - price[:, None] * counts(size)
        weight = (size + 1.0) / (1 << size) * T
        share = weight / (central(scores, weight)[:, None] - scores)
        share /= share.sum(axis=1, keepdims=True)
        out += [Group(*each) for each in zip(family.members, family.D, share, strict=True)]
    return out, split.t


def restricted(groups: Iterable[Group], fix: NDArray[np.int8], place: Index) -> list[Group]:
    """The groups once entries are fixed.

    Args:
        groups: before.
        fix: `[f]` 1 kept, -1 pruned, 0 free.
        place: `[f]` the new number of every free entry.
    """
    out = []
    for group in groups:
        own = fix[group.members]
        free, kept = np.flatnonzero(own == 0), np.flatnonzero(own > 0)
        if len(free) == len(own):
            out.append(Group(place[group.members], group.D, group.share))
        elif len(free):
            D = group.D[np.ix_(free, free)]
            if len(kept):
                across = group.D[np.ix_(kept, free)]
                D = D - across.T @ scipy.linalg.solve(group.D[np.ix_(kept, kept)], across, assume_a="pos")
            states = kept_by(len(own))
            some = ~((states & (own < 0)).any(axis=1) | (~states & (own > 0)).any(axis=1))
            share = group.share[some]  # the states left are in the order of the free entries' bits
            total = float(share.sum())
            share = share / total if total > 0.0 else np.full(len(share), 1.0 / len(share))
            out.append(Group(place[group.members[free]], D, share))
    return out


def merged(groups: list[Group], S: NDArray[np.floating], labels: Index, size: int) -> list[Group]:
    """Groups joined to ones of at most `size` entries of one pool, the most correlated first.

    Args:
        groups: any.
        S: `[f, f]` positive definite, by which correlation is told.
        labels: `[f]` pools.
        size: entries of a group at most.
    """
    root = np.sqrt(np.diagonal(S))
    C = (S / root[:, None] / root[None, :]) ** 2
    while len(groups) > 1:
        sizes = np.array([len(group.members) for group in groups])
        pools = np.array([labels[group.members[0]] for group in groups])
        fits = (sizes[:, None] + sizes[None, :] <= size) & (pools[:, None] == pools[None, :])
        first, second = np.nonzero(np.triu(fits, 1))
        if not len(first):
            break
        E = np.zeros((len(groups), len(S)))
        for k, group in enumerate(groups):
            E[k, group.members] = 1.0 / np.sqrt(len(group.members))
        worth = (E @ C @ E.T)[first, second]
        taken = np.zeros(len(groups), dtype=bool)
        joined = []
        for k in np.argsort(-worth, kind="stable").tolist():
            i, j = int(first[k]), int(second[k])
            if not (taken[i] or taken[j]):
                taken[i] = taken[j] = True
                joined.append(_joined(groups[i], groups[j]))
        groups = joined + [group for group, done in zip(groups, taken, strict=True) if not done]
    return groups


def _joined(one: Group, other: Group) -> Group:
    members = np.concatenate([one.members, other.members])
    share = np.outer(other.share, one.share).ravel()
    return Group(members, scipy.linalg.block_diag(one.D, other.D), share)


def at_shares(block: Block, groups: list[Group], t: Array) -> tuple[GroupSplit, float]:
    """A split of groups at the point that their states' shares make, and its relaxed value.

    With `W = sum_S share_S (D_SS)^-1` group by group, the relaxation costs
    `f = constant - 1/2 b'v`, `v = (R + W^-1)^-1 b`, and `q = b - R v`.

    Args:
        block: the row, or what is left of it.
        groups: of all its entries.
        t: `[pools]` prices.
    """
    families = families_of(groups)
    bare = GroupSplit(families, np.zeros(block.n), t)
    R, b = bare.remainder(block.H[0]), block.B[0, :, 0]
    M = R.copy()
    for family, shares in zip(families, shares_of(groups), strict=True):
        at, states = family.members, States.of(family.D, np.zeros(family.members.shape))
        W = np.einsum("bm,bmij->bij", shares, states.inverse)
        W += SPREAD * states.inverse[:, -1]
        M[at[:, :, None], at[:, None, :]] += np.linalg.inv(W)
    v = scipy.linalg.solve(M, b, assume_a="pos", check_finite=False)
    value = block.constant - 0.5 * float(b @ v)
    return GroupSplit(families, b - R @ v, t), value


def families_of(groups: list[Group]) -> tuple[Family, ...]:
    """Groups by size, each size in the order of the groups."""
    return tuple(
        Family(np.array([g.members for g in same]), np.array([g.D for g in same]))
        for same in _by_size(groups)
    )


def shares_of(groups: list[Group]) -> list[Array]:
    """The states' shares of `families_of`."""
    return [np.array([g.share for g in same]) for same in _by_size(groups)]


def _by_size(groups: list[Group]) -> list[list[Group]]:
    sizes = sorted({len(group.members) for group in groups})
    return [[group for group in groups if len(group.members) == size] for size in sizes]
