"""The ascent over blocks: what it reaches, and when it stops."""

import time

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.bounds import curves
from solvers.bounds.curves import lower_curves
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.groups.central_path import CentralPath, group_split, grouped
from solvers.bounds.groups.split import group_bound, group_curve, secure_groups
from solvers.bounds.split import split_blocks
from solvers.form.blocks import blocks
from tests.solvers.oracles import gram, make_problem, optimum

BUDGETS = {"one pool": Budget.per_row(5), "pools": Budget.n_of_m(2, 5)}


def lone_row(seed, budget="one pool", n=10, lone=()):
    rng = np.random.default_rng(seed)
    H = gram(rng, n)
    for i in lone:
        H[i], H[:, i] = 0.0, 0.0
        H[i, i] = rng.uniform(0.5, 2.0)
    problem = SubsetProblem(rng.standard_normal((1, n)), H, BUDGETS[budget])
    (block,) = blocks(problem)
    (split,) = split_blocks([block])
    return problem, block, split


@pytest.mark.parametrize("budget", BUDGETS)
def test_blocks_bound_below_the_optimum_and_larger_ones_better(budget):
    diagonal, raised = [], {1: [], 2: [], 4: []}
    for seed in range(8):
        problem, block, split = lone_row(seed, budget, lone=(4,) if seed % 2 else ())
        best = optimum(problem)
        diagonal.append(lower_bound(block, split.d, relaxed_point(block, split.d, split.z)) / best)
        for size, found in raised.items():
            safe, bound = group_split(block, split.d[0], split.z, best, size=size)
            assert bound <= best
            assert bound == group_bound(block, safe)
            R = safe.remainder(block.H[0])
            assert np.linalg.eigvalsh(R)[0] > -1e-12 * np.abs(R).max()
            found.append(bound / best)
    diagonal, one, two, four = (np.array(x) for x in (diagonal, *raised.values()))
    assert (np.abs(one - diagonal) < 0.03 * (1.0 - diagonal)).all()
    assert (two > one - 5e-3).all()
    assert (four > two - 5e-3).all()
    assert two.mean() > one.mean() + 5e-3
    assert four.mean() > two.mean() + 5e-3


def test_a_stop_is_heeded_with_a_bound_in_hand():
    problem, block, split = lone_row(2)
    best = optimum(problem)
    calls = []

    def stopped():
        calls.append(None)
        return len(calls) > 2

    safe, bound = group_split(block, split.d[0], split.z, best, size=4, stopped=stopped)
    assert len(calls) <= 5
    _, full = group_split(block, split.d[0], split.z, best, size=4)
    assert 0.0 < bound < full
    assert bound == group_bound(block, safe)
    begun, at_once = group_split(block, split.d[0], split.z, best, size=4, stopped=lambda: True)
    first = secure_groups(block.H[0], grouped(block, split.d[0], split.z, 4))
    assert at_once == pytest.approx(group_bound(block, first), rel=1e-9)
    for a, b in zip(begun.families, first.families, strict=True):
        np.testing.assert_array_equal(a.members, b.members)


def test_only_lone_joint_rows():
    rng = np.random.default_rng(3)
    for problem in (make_problem(rng, Budget.per_row(3), refit=False), make_problem(rng, Budget.columns(3))):
        block = blocks(problem)[0]
        with pytest.raises(ValueError, match="lone joint rows"):
            group_split(block, np.ones(6), np.full(6, 0.5), 1.0)


def test_prices_bound_every_count():
    for seed in range(4):
        problem, block, split = lone_row(seed)
        safe, bound = group_split(block, split.d[0], split.z, optimum(problem), size=4)
        low = group_curve(block, safe)
        best = [optimum(SubsetProblem(problem.W, problem.hessian, Budget.per_row(k))) for k in range(11)]
        assert (low <= np.array(best) * (1 + 1e-12)).all()
        assert low[5] == bound > 0.0
        assert low[6] - low[5] == pytest.approx(safe.t[0], rel=1e-6)


def test_curves_of_wide_rows_are_lifted_while_time_lasts(monkeypatch):
    monkeypatch.setattr(curves, "WIDE", 9)
    problem, _, _ = lone_row(5)
    plain = lower_curves(problem.W, problem.hessian)
    late = lower_curves(problem.W, problem.hessian, deadline=time.perf_counter() - 1.0)
    lifted = lower_curves(problem.W, problem.hessian, deadline=time.perf_counter() + 60.0)
    best = [optimum(SubsetProblem(problem.W, problem.hessian, Budget.per_row(k))) for k in range(11)]
    assert (late == plain).all()
    assert (lifted >= plain).all()
    assert (lifted[0] <= np.array(best) * (1 + 1e-12)).all()
    assert lifted[0, 5] > plain[0, 5] + 1e-3 * best[5]


def test_where_blocks_were_left_hot_they_go_on_when_they_are_to_be_colder():
    """The gap falls at every step, and a share of it that T is to reach: chased to its end, none is left."""
    for seed in range(8):
        problem, block, split = lone_row(seed)
        best = optimum(problem)
        path = CentralPath(block, grouped(block, split.d[0], split.z, 4), best)
        path.follow(lambda gap: 2.0 * gap, lambda: None)
        hot = path.bound
        path.follow(lambda gap: 0.2 * gap, lambda: None)
        assert path.bound > hot + 0.01 * (best - hot)
