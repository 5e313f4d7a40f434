"""Of bounds/groups/table.py and settle.py: states of blocks that rows share, and the best points there."""

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.bounds.groups.grouping import cluster, joined, start
from solvers.bounds.groups.settle import Place, Shared, bound_at, settle
from solvers.bounds.groups.split import group_bound, secure_groups
from solvers.bounds.groups.states import States
from solvers.bounds.groups.table import Table
from solvers.bounds.split import split_blocks
from solvers.form.blocks import blocks
from tests.solvers.exactly import exact_optimum
from tests.solvers.oracles import gram

BUDGETS = {"one pool": Budget.per_row(5), "pools": Budget.n_of_m(2, 4)}


def row(seed, budget, n=12):
    rng = np.random.default_rng(seed)
    problem = SubsetProblem(rng.standard_normal((1, n)), gram(rng, n, 0.1), BUDGETS[budget])
    block = blocks(problem)[0]
    (split,) = split_blocks([block])
    groups = joined(start(block, split.d[0], split.z), cluster(block.H[0], block.labels, 4))
    return problem, block, secure_groups(block.H[0], groups)


def some_blocks(seed, size, B=3):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((B, size, size + 2))
    members = rng.permutation(B * size).reshape(B, size)
    table = Table.of(members, np.ones((B, 1 << size), dtype=bool), X @ X.transpose(0, 2, 1))
    return table, rng.standard_normal(B * size), rng.uniform(0.0, 1.0, B)


def scores(table, q, t):
    """`[B, 2^s]`, by the other code."""
    states = States.of(table.D, q[table.members])
    kept = np.array([number.bit_count() for number in range(states.h.shape[1])])
    return states, states.h - t[:, None] * kept


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_smoothed_choices_are_those_of_all_states(size):
    table, q, t = some_blocks(size, size)
    states, score = scores(table, q, t)
    for T in (1e-3, 0.1, 3.0):
        weight = np.exp((score - score.max(axis=1, keepdims=True)) / T)
        soft = (score.max(axis=1) + T * np.log(weight.sum(axis=1))).sum()
        weight /= weight.sum(axis=1, keepdims=True)
        found = table.choices(q, t, T)
        assert found.soft == pytest.approx(soft, rel=1e-12)
        assert found.hard == pytest.approx(score.max(axis=1).sum(), rel=1e-12)
        assert table.worth(q, t, T) == pytest.approx((soft, found.hard), rel=1e-12)
        np.testing.assert_allclose(found.g, np.einsum("bm,bmi->bi", weight, states.w), rtol=1e-9, atol=1e-12)


def test_derivatives_agree_with_finite_differences():
    table, q, t = some_blocks(3, 3)
    T, eps = 0.2, 1e-6
    found = table.choices(q, t, T)
    for b, members in enumerate(table.members):
        for k, i in enumerate(members):
            there = table.choices(q + eps * (np.arange(len(q)) == i), t, T)
            assert (there.soft - found.soft) / eps == pytest.approx(found.g[b, k], abs=1e-4)
            np.testing.assert_allclose((there.g[b] - found.g[b]) / eps, found.C[b, k, :-1], atol=1e-4)
            assert (there.count[b] - found.count[b]) / -eps == pytest.approx(found.C[b, k, -1], abs=1e-4)
        there = table.choices(q, t + eps * (np.arange(len(t)) == b), T)
        assert (there.soft - found.soft) / eps == pytest.approx(-found.count[b], abs=1e-4)
        assert (there.count[b] - found.count[b]) / -eps == pytest.approx(found.C[b, -1, -1], abs=1e-4)


def test_blocks_that_are_not_definite_are_refused():
    table, _, _ = some_blocks(1, 3)
    D = table.D.copy()
    D[1, 2, 2] = 0.0
    assert Table.of(table.members, table.allowed, D) is None


@pytest.mark.parametrize("budget", BUDGETS)
def test_bounds_are_those_of_the_other_evaluation(budget):
    _, block, split = row(0, budget)
    shared, R = Shared.of(block, split), split.remainder(block.H[0])
    found = bound_at(shared, block, R, Place(split.q, split.t))
    assert found == pytest.approx(group_bound(block, split), rel=1e-9)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("seed", range(5))
def test_settled_points_are_best_and_their_bounds_hold(budget, seed):
    """Never above the optimum in rational arithmetic; no point or price nearby is better."""
    problem, block, split = row(seed, budget)
    shared, R = Shared.of(block, split), split.remainder(block.H[0])
    b, place, T = block.B[0, :, 0], Place(split.q, split.t), 0.1 * block.constant
    while 1e-7 * block.constant < T:
        place, _ = settle(shared, b, place, T, 50)
        T *= 0.3
    best = bound_at(shared, block, R, place)
    assert group_bound(block, split) <= best + 1e-12
    assert best <= exact_optimum(problem)[0]
    rng = np.random.default_rng(seed)
    for size in (1e-3, 1e-2, 0.1, 1.0):
        q = place.q + size * rng.standard_normal(block.n) * np.abs(place.q).mean()
        t = place.t * (1.0 + size * rng.standard_normal(len(place.t)))
        assert bound_at(shared, block, R, Place(q, t)) <= best * (1.0 + 1e-5)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_bounds_follow_the_curvatures_scale(scale):
    """Blocks of three among blocks of four: places that are not used cost no bound."""
    rng = np.random.default_rng(3)
    H, w = gram(rng, 11, 0.1), rng.standard_normal((1, 11))
    found = []
    for factor in (1.0, scale):
        block = blocks(SubsetProblem(w, factor * H, Budget.per_row(5)))[0]
        (diagonal,) = split_blocks([block])
        groups = joined(start(block, diagonal.d[0], diagonal.z), cluster(H, block.labels, 4))
        split = secure_groups(block.H[0], groups)
        assert len(split.families) > 1
        at = Place(split.q, split.t)
        found.append(bound_at(Shared.of(block, split), block, split.remainder(block.H[0]), at) / factor)
    assert 0.0 < found[1] == pytest.approx(found[0], rel=1e-6)


def test_bounds_hold_where_blocks_are_nearly_singular():
    """Rounding is part of the bound: blocks of condition 1e8 still give one below the optimum."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        a = rng.standard_normal((8, 2))
        H = a @ a.T + 1e-8 * gram(rng, 8, 0.1)
        problem = SubsetProblem(rng.standard_normal((1, 8)), 0.5 * (H + H.T), Budget.per_row(4))
        block = blocks(problem)[0]
        (diagonal,) = split_blocks([block])
        groups = joined(start(block, diagonal.d[0], diagonal.z), cluster(block.H[0], block.labels, 4))
        split = secure_groups(block.H[0], groups)
        shared = Shared.of(block, split)
        found = bound_at(shared, block, split.remainder(block.H[0]), Place(split.q, split.t))
        assert found <= exact_optimum(problem)[0]
