"""Splits in blocks: every bound of theirs is below brute force, whatever the blocks, point and prices."""

from dataclasses import replace
from fractions import Fraction
from itertools import chain, combinations, product

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Budget, SubsetProblem
from solvers.bounds.groups.central_path import start
from solvers.bounds.groups.clusters import cluster, clusters, joined, pattern_of
from solvers.bounds.groups.split import (
    Family,
    GroupSplit,
    bound_and_regrets,
    group_bound,
    relaxed,
    secure_groups,
)
from solvers.bounds.split import split_blocks
from solvers.form.blocks import blocks
from tests.solvers.exactly import exact_optimum
from tests.solvers.oracles import _solve_exactly as solve_exactly
from tests.solvers.oracles import block_masks, fractions, gram, optimum, unbalanced_row

BUDGETS = {
    "one pool": Budget.per_row(4),
    "pools": Budget.n_of_m(2, 4),
    "1 of 4": Budget.n_of_m(1, 4),
    "5 of 8": Budget.n_of_m(5, 8),
}


def lone_row(seed, budget="one pool", n=8, damping=0.1):
    rng = np.random.default_rng(seed)
    H = gram(rng, n, damping)
    problem = SubsetProblem(rng.standard_normal((1, n)), H, BUDGETS[budget])
    return problem, blocks(problem)[0]


def started(block, size):
    (split,) = split_blocks([block])
    return joined(block, start(block, split.d[0], split.z), clusters(block.H[0], block, size))


def random_split(rng, block, size):
    """Any grouping, any definite blocks, any point and prices."""
    groups = {}
    for pool in range(len(block.keep)):
        order = rng.permutation(np.flatnonzero(block.labels == pool))
        for members in np.split(order, range(size, len(order), size)):
            groups.setdefault(len(members), []).append(members)
    families = []
    for count, members in groups.items():
        A = rng.standard_normal((len(members), count, count))
        families.append(Family(np.array(members), A @ A.transpose(0, 2, 1) + 0.05 * np.eye(count)))
    low = np.linalg.eigvalsh(block.H[0])[0]
    high = max(np.linalg.eigvalsh(family.D)[:, -1].max() for family in families)
    split = GroupSplit(
        tuple(families),
        rng.standard_normal(block.n) * np.abs(block.B).max(),
        rng.standard_normal(len(block.keep)),
    )
    return split.scaled(rng.uniform(0.3, 0.95) * low / high)


def random_pools(rng, block, together):
    """Any grouping of whole pools, any blocks that are definite on their states and not otherwise."""
    pools = rng.permutation(len(block.keep))
    groups = [
        np.concatenate([rng.permutation(np.flatnonzero(block.labels == p)) for p in pools[i : i + together]])
        for i in range(0, len(pools), together)
    ]
    families = []
    for group in groups:
        A = rng.standard_normal((len(group), len(group) + 1))
        family = Family(group[None], (A @ A.T)[None], pattern_of(group, block.labels, block.keep))
        lowest = family.states.lowest(family.D).min()
        families.append(replace(family, D=family.D - 0.9 * lowest * np.eye(len(group))))
    low = np.linalg.eigvalsh(block.H[0])[0]
    high = max(np.linalg.eigvalsh(family.D[0])[-1] for family in families)
    q = rng.standard_normal(block.n) * np.abs(block.B).max()
    split = GroupSplit(tuple(families), q, np.zeros(len(block.keep)))
    return split.scaled(rng.uniform(0.3, 0.95) * low / high)


def exact_bound(block, split):
    """The formula in rational arithmetic, at the u that floating point finds."""
    H, b, half = fractions(block.H[0]), fractions(block.H[0]) @ fractions(block.W[0, :, 0]), Fraction(1, 2)
    R = H.copy()
    for family in split.families:
        for members, D in zip(family.members, family.D, strict=True):
            R[np.ix_(members, members)] -= fractions(D)
    u = fractions(relaxed(split.remainder(block.H[0]), block.B[0, :, 0] - split.q))
    q, total = b - R @ u, fractions(block.W[0, :, 0]) @ b * half - half * (u @ R @ u)
    total -= sum(Fraction(t) * int(k) for t, k in zip(split.t, block.keep, strict=True))
    for family in split.families:
        for members, D in zip(family.members, fractions(family.D), strict=True):
            price = Fraction(split.t[block.labels[members[0]]])
            pools, best = block.labels[members], None if family.pattern else Fraction(0)
            for S in chain.from_iterable(
                combinations(range(len(members)), k) for k in range(1, len(members) + 1)
            ):
                S = list(S)
                if family.pattern and any((pools[S] == p).sum() != block.keep[p] for p in set(pools)):
                    continue
                x = solve_exactly(D[np.ix_(S, S)], q[members[S]])
                score = half * (q[members[S]] @ x) - len(S) * price
                best = score if best is None else max(best, score)
            total -= best
    return total


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_any_blocks_point_and_prices_give_a_bound_below_the_formula(size, budget):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        problem, block = lone_row(seed, budget)
        split = random_split(rng, block, size)
        bound, exact = group_bound(block, split), exact_bound(block, split)
        assert exact <= optimum(problem) * (1 + 1e-12)
        assert bound <= max(exact, 0)
        assert bound >= float(exact) - 1e-11 * (abs(float(exact)) + block.constant)


@pytest.mark.parametrize("budget", ["pools", "1 of 4"])
@pytest.mark.parametrize("together", [1, 2, 3])
def test_any_blocks_of_whole_pools_give_a_bound_below_the_formula(together, budget):
    indefinite = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        problem, block = lone_row(seed, budget, n=12)
        split = random_pools(rng, block, together)
        indefinite += any(np.linalg.eigvalsh(family.D).min() < 0.0 for family in split.families)
        bound, exact = group_bound(block, split), exact_bound(block, split)
        assert exact <= optimum(problem) * (1 + 1e-12)
        assert bound <= max(exact, 0)
        assert bound >= float(exact) - 1e-10 * (abs(float(exact)) + block.constant)
    assert indefinite > 3


@pytest.mark.parametrize("together", [1, 2])
def test_a_curvature_of_whole_pools_is_bounded_exactly(together):
    """With D = H the best state of every group is the optimum, and no price is needed."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        H = scipy.linalg.block_diag(*(gram(rng, 4 * together, 0.1) for _ in range(3 - together)))
        problem = SubsetProblem(rng.standard_normal((1, len(H))), H, Budget.n_of_m(2, 4))
        (block,) = blocks(problem)
        members = np.arange(len(H)).reshape(-1, 4 * together)
        D = np.stack([H[np.ix_(group, group)] for group in members])
        pattern = ((4, 2),) * together
        split = GroupSplit((Family(members, D, pattern),), block.B[0, :, 0], np.zeros(len(block.keep)))
        exact = float(exact_optimum(problem)[0])
        assert exact * (1 - 1e-9) <= group_bound(block, split) <= exact


@pytest.mark.parametrize("budget", ["one pool", "pools"])
def test_no_mask_costs_less_than_the_regrets_of_its_entries_say(budget):
    """Also where the split shows less than nothing, and the bound is the floor."""
    risen, floored = 0.0, 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        _, block = lone_row(seed, budget)
        far = random_split(rng, block, 4) if budget == "one pool" else random_pools(rng, block, 2)
        for split in (secure_groups(block.H[0], started(block, 4)), far):
            bound, kept, pruned = bound_and_regrets(block, split)
            assert bound == group_bound(block, split)
            floored += bound == block.floor
            for mask in block_masks(block):
                reach = block.value(mask) + 1e-9 * block.constant
                assert bound + kept[~mask].max() <= reach
                assert bound + pruned[mask].max() <= reach
            risen = max(risen, kept.max() / block.constant, pruned.max() / block.constant)
    assert risen > 3e-3
    assert floored


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_split_to_start_from_is_nearly_the_diagonal_one(size, budget):
    for seed in range(4):
        problem, block = lone_row(seed, budget, damping=0.5)
        safe = secure_groups(block.H[0], started(block, size))
        bound = group_bound(block, safe)
        assert 0.1 * optimum(problem) < bound <= optimum(problem)
        assert bound <= max(exact_bound(block, safe), 0)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(0.0, 4.0), st.sampled_from([1, 2, 4]))
def test_rows_of_any_condition(seed, spread, size):
    problem = unbalanced_row(seed, True, spread)
    (block,) = blocks(problem)
    if block.trivial:
        return
    try:
        safe = secure_groups(block.H[0], started(block, size))
    except ValueError:
        return
    assert group_bound(block, safe) <= exact_optimum(problem)[0]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_curvature_of_blocks_is_bounded_exactly(size):
    """With D = H nothing is left for u: the bound is the optimum where prices close the gap, to rounding."""
    tight = 0
    for seed in range(2):
        rng = np.random.default_rng(seed)
        H = np.zeros((8, 8))
        for at in range(0, 8, size):
            H[at : at + size, at : at + size] = gram(rng, size, 0.1)
        for keep in (2, 4, 6):
            problem = SubsetProblem(rng.standard_normal((1, 8)), H, Budget.per_row(8 - keep))
            (block,) = blocks(problem)
            members = np.arange(8).reshape(-1, size)
            D = np.stack([H[np.ix_(group, group)] for group in members])
            best, exact = -np.inf, exact_optimum(problem)[0]
            for t in np.linspace(0.0, 0.5 * np.abs(block.B).max() ** 2 / np.diagonal(H).min(), 150):
                split = GroupSplit((Family(members, D),), block.B[0, :, 0], np.array([t]))
                best = max(best, group_bound(block, split))
            assert best <= exact
            tight += best > float(exact) * (1 - 1e-9)
    assert tight > 1


@pytest.mark.parametrize("size", [1, 2, 4])
def test_inputs_correlated_with_nothing_stay_alone(size):
    rng = np.random.default_rng(3)
    H = gram(rng, 8)
    H[[2, 5]] = 0.0
    H[:, [2, 5]] = 0.0
    H[2, 2], H[5, 5] = 3.0, 0.2
    problem = SubsetProblem(rng.standard_normal((1, 8)), H, Budget.per_row(4))
    (block,) = blocks(problem)
    split = started(block, size)
    for family in split.families:
        for members, D in zip(family.members, family.D, strict=True):
            if {2, 5} & set(members.tolist()):
                assert len(members) == 1
                assert 0.0 < D[0, 0] < H[members[0], members[0]]
    safe = secure_groups(H, split)
    assert group_bound(block, safe) <= optimum(problem)
    assert group_bound(block, safe) > 0.2 * optimum(problem)


@pytest.mark.parametrize("condition", [1e2, 1e6, 1e10])
def test_what_is_secured_leaves_a_positive_semidefinite_remainder(condition):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        Q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
        H = (Q * np.geomspace(1.0, 1.0 / condition, 6)) @ Q.T
        H = 0.5 * (H + H.T)
        members = rng.permutation(6).reshape(-1, 2)
        D = np.stack([H[np.ix_(group, group)] for group in members])
        split = secure_groups(H, GroupSplit((Family(members, D),), np.zeros(6), np.zeros(1)))
        R = fractions(H)
        for group, block in zip(members, split.families[0].D, strict=True):
            R[np.ix_(group, group)] -= fractions(block)
            assert np.linalg.eigvalsh(block)[0] > 0.0
        for k in range(6):
            assert R[0, 0] > 0 or k == 5
            R = R[1:, 1:] - np.outer(R[1:, 0], R[0, 1:]) / R[0, 0]


def test_a_factor_that_rounding_lets_through_is_no_proof():
    """D at the very edge: Cholesky alone succeeds on remainders that are not positive semidefinite."""
    wrong = 0
    for seed, step in product(range(12), range(-8, 9)):
        rng = np.random.default_rng(seed)
        H = gram(rng, 4)
        members = np.arange(4).reshape(2, 2)
        D = np.stack([H[np.ix_(group, group)] for group in members])
        edge = scipy.linalg.eigvalsh(H, scipy.linalg.block_diag(*D))[0] * (1.0 + 2e-16 * step)
        raw = GroupSplit((Family(members, edge * D),), np.zeros(4), np.zeros(1))
        shown = []
        for split in (raw, secure_groups(H, raw)):
            R = fractions(H) - scipy.linalg.block_diag(*map(fractions, split.families[0].D))
            while len(R) > 1 and R[0, 0] > 0:
                R = R[1:, 1:] - np.outer(R[1:, 0], R[0, 1:]) / R[0, 0]
            shown.append(len(R) == 1 and R[0, 0] >= 0)
        wrong += not shown[0] and scipy.linalg.lapack.dpotrf(raw.remainder(H), lower=1)[1] == 0
        assert shown[1]
    assert wrong > 3


def test_a_singular_curvature_is_refused():
    split = GroupSplit(
        (Family(np.arange(4).reshape(-1, 2), np.tile(np.eye(2), (2, 1, 1))),), np.zeros(4), np.zeros(1)
    )
    with pytest.raises(ValueError, match="too close to singular"):
        secure_groups(np.ones((4, 4)), split)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_groups_hold_every_entry_once_and_cross_no_pool(size):
    H = gram(np.random.default_rng(0), 18)
    for labels in (np.zeros(18, np.int64), np.repeat(np.arange(3), 6), np.repeat(np.arange(6), 3)):
        groups = cluster(H * H, labels, size)
        assert sorted(np.concatenate(groups).tolist()) == list(range(18))
        assert max(map(len, groups)) <= size
        assert all(len(np.unique(labels[group])) == 1 for group in groups)
        if size > 1:
            assert max(map(len, groups)) > size // 2 or len(labels) // (labels[-1] + 1) < size


def test_the_most_correlated_are_together():
    H = np.eye(6)
    for i, j, share in ((0, 4, 0.9), (1, 3, 0.8), (2, 5, 0.1), (0, 1, 0.3), (4, 3, 0.3)):
        H[i, j] = H[j, i] = share
    pairs = {frozenset(group.tolist()) for group in cluster(H, np.zeros(6, np.int64), 2)}
    assert pairs == {frozenset({0, 4}), frozenset({1, 3}), frozenset({2, 5})}
    fours = {frozenset(group.tolist()) for group in cluster(H, np.zeros(6, np.int64), 4)}
    assert frozenset({0, 1, 3, 4}) in fours


@pytest.mark.parametrize("n", [9, 10, 11, 13, 21])
def test_no_group_is_larger_than_asked_whatever_is_left_over(n):
    for seed in range(4):
        M = gram(np.random.default_rng(seed), n)
        groups = cluster(M**2, np.zeros(n, np.int64), 8)
        assert max(map(len, groups)) <= 8
        assert sorted(np.concatenate(groups).tolist()) == list(range(n))


def test_pools_that_fit_stay_whole_and_the_correlated_ones_come_together():
    H = np.eye(20)
    for i, j, share in ((0, 9, 0.8), (2, 8, 0.7), (4, 13, 0.8), (0, 4, 0.2), (10, 12, 0.3), (16, 1, 0.1)):
        H[i, j] = H[j, i] = share
    _, block = lone_row(0, "pools", n=20)
    for size in (1, 2):
        assert all(len(set(block.labels[group])) == 1 for group in clusters(H, block, size))
    alone = {frozenset(group.tolist()) for group in clusters(H, block, 4)}
    assert alone == {frozenset(range(p, p + 4)) for p in range(0, 20, 4)}
    two = {frozenset(block.labels[group].tolist()) for group in clusters(H, block, 8)}
    assert two == {frozenset({0, 2}), frozenset({1, 3}), frozenset({4})}
    four = {frozenset(block.labels[group].tolist()) for group in clusters(H, block, 16)}
    assert four == {frozenset({0, 1, 2, 3}), frozenset({4})}


def test_groups_have_no_more_states_than_is_worth_it():
    _, block = lone_row(0, "5 of 8", n=32)
    H = gram(np.random.default_rng(0), 32)
    assert all(len(group) == 8 for group in clusters(H, block, 16))


def test_patterns_are_of_whole_pools_that_leave_a_choice():
    labels, keep = np.repeat(np.arange(4), [3, 2, 4, 1]), np.array([1, 1, 2, 1])
    assert pattern_of(np.array([3, 4, 0, 2, 1]), labels, keep) == ((2, 1), (3, 1))
    assert pattern_of(np.array([5, 6, 7, 8]), labels, keep) == ((4, 2),)
    assert pattern_of(np.array([5, 6, 7]), labels, keep) == ()
    assert pattern_of(np.array([3, 4, 9]), labels, keep) == ()
    assert pattern_of(np.array([0, 1, 2]), labels[:3], keep[:1]) == ()


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_bounds_follow_the_curvatures_scale(scale):
    rng = np.random.default_rng(3)
    H, w = gram(rng, 11, 0.1), rng.standard_normal((1, 11))
    found = []
    for factor in (1.0, scale):
        (block,) = blocks(SubsetProblem(w, factor * H, Budget.per_row(5)))
        split = secure_groups(block.H[0], started(block, 4))
        assert len(split.families) > 1
        found.append(group_bound(block, split) / factor)
    assert 0.0 < found[1] == pytest.approx(found[0], rel=1e-6)


def test_bounds_hold_where_blocks_are_nearly_singular():
    """Rounding is part of the bound: blocks of condition 1e8 still give one below the optimum."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        a = rng.standard_normal((8, 2))
        H = a @ a.T + 1e-8 * gram(rng, 8, 0.1)
        for budget in (Budget.per_row(4), Budget.n_of_m(2, 4)):
            problem = SubsetProblem(rng.standard_normal((1, 8)), 0.5 * (H + H.T), budget)
            (block,) = blocks(problem)
            split = secure_groups(block.H[0], started(block, 4))
            assert group_bound(block, split) <= exact_optimum(problem)[0]


def test_blocks_that_are_not_definite_prove_nothing():
    _, block = lone_row(1)
    split = started(block, 4)
    bad = replace(
        split, families=tuple(replace(f, D=f.D - 10.0 * np.eye(f.D.shape[1])) for f in split.families)
    )
    assert group_bound(block, bad) == block.floor
