"""What a node's split leaves to its children: smaller groups, joined anew, and a point to start from.

A split `H = R + D` of a row stays one when entries are fixed. A pruned entry leaves its group, and a kept one
is eliminated: the Schur complement of a sum is at least the sum of the Schur complements, so that those of
D's blocks are a split of that of H.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.bounds.groups.barrier import central
from solvers.bounds.groups.split import Family, GroupSplit
from solvers.bounds.groups.states import Index, Pattern, States, StateSet, states_of
from solvers.form.blocks import Block
from solvers.hessian import Array

SPREAD = 1e-7
"""Share of a group's weights that states without weight get, so that all of it can be inverted."""
STATES = 36
"""States of several whole pools at most: two of 2:4 have so many, three with an entry fixed each have 27."""


@dataclass(frozen=True)
class Group:
    """A group of a split.

    Attributes:
        members: `[s]` entries.
        D: `[s, s]` its block.
        share: `[K]` of every state in the relaxation; they add up to one.
        pattern: of the pools that it is made of; empty where it is part of one.
    """

    members: Index
    D: Array
    share: Array
    pattern: Pattern = ()

    @property
    def states(self) -> StateSet:
        """Its states."""
        return states_of(len(self.members), self.pattern)

    @property
    def kept(self) -> Array:
        """`[s]` the share of every entry that is kept."""
        return np.asarray(self.share @ self.states.kept)


@dataclass(frozen=True, eq=False)
class Seed:
    """What a relaxation leaves to the nodes below it.

    Attributes:
        free: `[f]` the entries that it left free.
        groups: its groups, in their numbering.
        t: `[f]` its price of keeping each of these.
    """

    free: NDArray[np.int64]
    groups: list[Group]
    t: Array

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        arrays = [array for group in self.groups for array in (group.members, group.D, group.share)]
        return self.free.nbytes + self.t.nbytes + sum(array.nbytes + 100 for array in arrays)


def groups_of(block: Block, split: GroupSplit, T: float) -> list[Group]:
    """The groups of a split, with the states' shares on the central path at T."""
    out = []
    for family in split.families:
        states, price = family.states, split.t[block.labels[family.members[:, 0]]]
        scores = States.of(family.D, split.q[family.members], states).h - price[:, None] * states.counts
        weight = states.weight * T
        share = weight / (central(scores, weight)[:, None] - scores)
        share /= share.sum(axis=1, keepdims=True)
        every = zip(family.members, family.D, share, strict=True)
        out += [Group(*each, family.pattern) for each in every]
    return out


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
            out.append(replace(group, members=place[group.members]))
        elif len(free):
            D = group.D[np.ix_(free, free)]
            if len(kept):
                across = group.D[np.ix_(kept, free)]
                D = D - across.T @ scipy.linalg.solve(group.D[np.ix_(kept, kept)], across, assume_a="pos")
            states = group.states.kept
            some = ~((states & (own < 0)).any(axis=1) | (~states & (own > 0)).any(axis=1))
            share = group.share[some]  # the states left are in the order of the free entries' bits
            total = float(share.sum())
            share = share / total if total > 0.0 else np.full(len(share), 1.0 / len(share))
            out.append(Group(place[group.members[free]], D, share, _left(group.pattern, own)))
    return out


def _left(pattern: Pattern, fix: NDArray[np.int8]) -> Pattern:
    """What a group's pools are once entries are fixed, in its order; pools that none are left of vanish."""
    left, first = [], 0
    for size, keep in pattern:
        own = fix[first : first + size]
        first += size
        if (own == 0).any():
            left.append((int((own == 0).sum()), keep - int((own > 0).sum())))
    return tuple(left)


def merged(groups: list[Group], S: NDArray[np.floating], labels: Index, size: int) -> list[Group]:
    """Groups joined to ones of at most `size` entries of one pool, the most correlated first.

    Groups of whole pools are joined to one another, to ones of at most `STATES` states.

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
        count = np.array([len(group.share) if group.pattern else np.inf for group in groups])
        pools = np.array([-1 if group.pattern else labels[group.members[0]] for group in groups])
        fits = (pools[:, None] == pools[None, :]) & np.where(
            pools[:, None] < 0, count[:, None] * count <= STATES, sizes[:, None] + sizes <= size
        )
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
    return Group(members, scipy.linalg.block_diag(one.D, other.D), share, one.pattern + other.pattern)


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
        at, states = family.members, States.of(family.D, np.zeros(family.members.shape), family.states)
        W = np.einsum("bm,bmij->bij", shares + SPREAD * family.states.largest, states.inverse)
        M[at[:, :, None], at[:, None, :]] += np.linalg.inv(W)
    v = scipy.linalg.solve(M, b, assume_a="pos", check_finite=False)
    value = block.constant - 0.5 * float(b @ v)
    return GroupSplit(families, b - R @ v, t), value


def families_of(groups: list[Group]) -> tuple[Family, ...]:
    """Groups by size and pools, those that are alike in the order of the groups."""
    return tuple(
        Family(np.array([g.members for g in same]), np.array([g.D for g in same]), same[0].pattern)
        for same in _alike(groups)
    )


def shares_of(groups: list[Group]) -> list[Array]:
    """The states' shares of `families_of`."""
    return [np.array([g.share for g in same]) for same in _alike(groups)]


def _alike(groups: list[Group]) -> list[list[Group]]:
    kinds: dict[tuple[int, Pattern], list[Group]] = {}
    for group in groups:
        kinds.setdefault((len(group.members), group.pattern), []).append(group)
    return [kinds[kind] for kind in sorted(kinds)]
