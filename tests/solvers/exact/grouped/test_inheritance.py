"""What children get of a split: still a split, with the shares that are left, in groups joined anew."""

from dataclasses import replace
from math import comb

import numpy as np
import pytest

from solvers.bounds.groups.split import GroupSplit
from solvers.bounds.groups.states import kept_by, whole_pools
from solvers.bounds.node.restriction import part_of, restrict
from solvers.budget import Budget
from solvers.exact.grouped.inheritance import (
    STATES,
    Group,
    at_shares,
    families_of,
    groups_of,
    merged,
    restricted,
)
from solvers.form.blocks import blocks
from solvers.problem import SubsetProblem


def split_row(seed=0, n=12, size=4):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((2 * n, n))
    R, groups = X.T @ X / (2 * n), []
    H = R.copy()
    for first in range(0, n, size):
        at = np.arange(first, first + size)
        Y = rng.standard_normal((size, size + 1))
        D = Y @ Y.T + 0.1 * np.eye(size)
        H[np.ix_(at, at)] += D
        groups.append(Group(at, D, rng.dirichlet(np.ones(1 << size))))
    block = blocks(SubsetProblem(rng.standard_normal((1, n)), H, Budget.per_row(n // 2)))[0]
    return block, groups, rng


def test_a_split_stays_one_when_entries_are_fixed():
    block, groups, _ = split_row()
    fix = np.zeros(12, np.int8)
    fix[[0, 5, 6]], fix[[1, 4, 8]] = 1, -1
    free, rest = restrict(part_of(block), fix)
    place = np.full(12, -1)
    place[free] = np.arange(len(free))
    left = restricted(groups, fix, place)
    assert sorted(np.concatenate([group.members for group in left]).tolist()) == list(range(len(free)))
    R = GroupSplit(families_of(left), np.zeros(len(free)), np.zeros(1)).remainder(rest.H[0])
    assert np.linalg.eigvalsh(R)[0] > 0.0
    for group in left:
        assert np.linalg.eigvalsh(group.D)[0] > 0.0
        assert group.share.sum() == pytest.approx(1.0)


def test_shares_are_those_of_the_states_that_agree():
    _, groups, _ = split_row()
    fix = np.zeros(12, np.int8)
    fix[1], fix[2] = 1, -1
    free = np.flatnonzero(fix == 0)
    place = np.full(12, -1)
    place[free] = np.arange(len(free))
    first, whole = restricted(groups, fix, place)[0], groups[0]
    expected = np.zeros(4)
    for state in range(16):
        kept = kept_by(4)[state]
        if kept[1] and not kept[2]:
            expected[int(kept[0]) + 2 * int(kept[3])] += whole.share[state]
    assert first.share == pytest.approx(expected / expected.sum())
    assert first.kept == pytest.approx((expected / expected.sum()) @ kept_by(2))


def test_joined_groups_hold_the_same():
    block, groups, _ = split_row(size=2)
    joined = merged(groups, np.linalg.inv(block.H[0]), block.labels, 4)
    assert sorted(len(group.members) for group in joined) == [4, 4, 4]

    def whole(some):
        return block.H[0] - GroupSplit(families_of(some), np.zeros(12), np.zeros(1)).remainder(block.H[0])

    assert whole(joined) == pytest.approx(whole(groups))
    z, other = np.empty(12), np.empty(12)
    for out, some in ((z, groups), (other, joined)):
        for group in some:
            out[group.members] = group.kept
            assert group.share.sum() == pytest.approx(1.0)
    assert z == pytest.approx(other)


def test_groups_of_several_pools_are_not_joined():
    _, groups, _ = split_row(size=2)
    labels = np.repeat(np.arange(3), 4)
    for group in merged(groups, np.eye(12) + 0.1, labels, 8):
        assert len(set(labels[group.members])) == 1


def test_a_mask_costs_what_its_shares_say():
    block, groups, rng = split_row()
    pruned = np.isin(np.arange(12), rng.permutation(12)[:6])
    sure = []
    for group in groups:
        share = np.zeros(16)
        share[int(((~pruned[group.members]) << np.arange(4)).sum())] = 1.0
        sure.append(Group(group.members, group.D, share))
    split, value = at_shares(block, sure, np.zeros(1))
    assert value == pytest.approx(block.value(pruned), rel=1e-4)
    again = groups_of(block, split, 1e-3)
    assert all(group.share.min() > 0.0 for group in again)


def pool_groups(pools, keep, rng):
    """Groups of whole pools of four, D definite on the states alone."""
    groups = []
    for first in range(0, 4 * pools, 4):
        Y, pattern = rng.standard_normal((4, 5)), ((4, keep),)
        D = Y @ Y.T
        D -= 0.9 * whole_pools(pattern).lowest(D[None]).min() * np.eye(4)
        groups.append(Group(np.arange(first, first + 4), D, rng.dirichlet(np.ones(comb(4, keep))), pattern))
    return groups


def test_pools_keep_their_states_when_joined_and_when_entries_are_fixed():
    rng = np.random.default_rng(0)
    groups = pool_groups(3, 2, rng)
    S = np.eye(12)
    S[0, 9] = S[9, 0] = 0.7
    joined = merged(groups, S, np.repeat(np.arange(3), 4), 4)
    assert sorted(group.pattern for group in joined) == [((4, 2),), ((4, 2), (4, 2))]
    pair = max(joined, key=lambda group: len(group.members))
    assert set(pair.members.tolist()) == {0, 1, 2, 3, 8, 9, 10, 11}
    one, other = (g for g in groups if g.members[0] in (0, 8))
    for kept, share in zip(pair.states.kept, pair.share, strict=True):
        at = pair.members[kept]
        wanted = 1.0
        for group in (one, other):
            inside = np.isin(group.members, at)
            (place,) = np.flatnonzero((group.states.kept == inside).all(axis=1))
            wanted *= group.share[place]
        assert share == pytest.approx(wanted)
    fix = np.zeros(12, np.int8)
    fix[[0, 9]], fix[[1, 10, 11]] = 1, -1  # of pool 2 only entry 8 is left, which is kept in any case
    free = np.flatnonzero(fix == 0)
    place = np.full(12, -1)
    place[free] = np.arange(len(free))
    left = next(g for g in restricted([pair], fix, place))
    assert sorted(left.pattern) == [(1, 1), (2, 1)]
    assert left.share.sum() == pytest.approx(1.0)
    for kept, share in zip(left.states.kept, left.share, strict=True):
        keeps = set(free[left.members[kept]].tolist()) | {0, 9}
        (old,) = [k for k, state in enumerate(pair.states.kept) if set(pair.members[state].tolist()) == keeps]
        agree = [
            s
            for s in pair.states.kept
            if {0, 9} <= set(pair.members[s]) and not {1, 10, 11} & set(pair.members[s])
        ]
        total = sum(pair.share[[(pair.states.kept == s).all(axis=1).argmax() for s in agree]])
        assert share == pytest.approx(pair.share[old] / total)


def test_pools_are_joined_while_they_have_few_states():
    rng = np.random.default_rng(1)
    S = np.full((16, 16), 0.1) + np.eye(16)
    labels = np.repeat(np.arange(4), 4)
    assert sorted(len(g.members) for g in merged(pool_groups(4, 2, rng), S, labels, 8)) == [8, 8]
    assert max(len(g.share) for g in merged(pool_groups(4, 1, rng), S, labels, 8)) <= STATES


def test_a_mask_of_pools_costs_what_its_shares_say():
    rng = np.random.default_rng(2)
    groups = pool_groups(3, 2, rng)
    X = rng.standard_normal((20, 12))
    H = X.T @ X / 20
    for group in groups:
        H[np.ix_(group.members, group.members)] += group.D
    block = blocks(SubsetProblem(rng.standard_normal((1, 12)), H, Budget.n_of_m(2, 4)))[0]
    pruned = np.tile([True, False, False, True], 3)
    sure = [replace(g, share=(g.states.kept == ~pruned[g.members]).all(axis=1) * 1.0) for g in groups]
    assert at_shares(block, sure, np.zeros(3))[1] == pytest.approx(block.value(pruned), rel=1e-4)
