"""The semidefinite relaxation: a bound that is valid, the strongest of its kind, and stops when told."""

import itertools

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, solve
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.form.blocks import blocks
from solvers.relaxations.sdp import CvxpySdp, lowest_split, sdp_splits
from tests.solvers.oracles import BUDGETS, gram, make_problem, optimum, relaxed_value


@pytest.mark.parametrize("kind", ["shared", "stacked"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_bound_lies_between_the_crude_one_and_the_optimum(rng, budget, refit, kind):
    problem = make_problem(rng, BUDGETS[budget], refit=refit, gradient=not refit, kind=kind)
    solution = solve(problem, "cvxpy-sdp")
    assert solution.bound <= optimum(problem) <= solution.value
    if budget != "per_layer":
        crude = sum(
            lower_bound(b, split.d, relaxed_point(b, split.d, split.z))
            for b in blocks(problem)
            for split in [lowest_split(b)]
        )
        assert solution.bound > crude
    assert solution.stats["statuses"] == ["optimal"]


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_no_split_gives_a_better_bound(rng, refit):
    problem = make_problem(rng, Budget.per_row(4), m=1, n=8, refit=refit, gradient=not refit)
    block = blocks(problem)[0]
    [split], status = sdp_splits([block], block.labels[None], block.keep, optimum(problem) or 1.0)
    assert status == "optimal"
    at = solve(problem, "cvxpy-sdp").bound
    assert at == pytest.approx(relaxed_value(block, split.d), rel=1e-5, abs=1e-7 * block.scale)
    for _ in range(20):
        d = split.d * np.exp(0.05 * rng.standard_normal(split.d.shape))
        low = np.linalg.eigvalsh(block.H[0] - np.diag(d[0]))[0]
        other = d - max(0.0, -low) * 1.000001
        if not refit or (other > 0).all():
            assert relaxed_value(block, other) <= at + 1e-5 * abs(at) + 1e-7 * block.scale


def test_layer_bound_holds_for_every_share(rng):
    problem = make_problem(rng, Budget.per_layer(6), m=3)
    bound = solve(problem, "cvxpy-sdp").bound
    apart = SubsetProblem(problem.W, problem.hessian, Budget.per_row(2))
    assert bound <= min(optimum(problem), solve(apart, "brute-force").value)
    assert bound >= 0.9 * solve(problem, "relaxation").bound > 0.0


@pytest.mark.parametrize("prune", [0, 6])
def test_an_only_mask_is_proven(rng, prune):
    solution = solve(make_problem(rng, Budget.per_row(prune), refit=False), "cvxpy-sdp")
    assert solution.status is Status.OPTIMAL
    assert solution.stats["statuses"] == ["decided"]


def test_stops_within_a_programme():
    rng = np.random.default_rng(0)
    problem = SubsetProblem(rng.standard_normal((1, 60)), gram(rng, 60), Budget.per_row(40))
    solution = solve(problem, "cvxpy-sdp", time_limit=0.3)
    assert solution.status is Status.TIME_LIMIT
    assert 0.0 <= solution.bound < solution.value


def test_is_left_behind_when_told_to_stop():
    rng = np.random.default_rng(0)
    block = blocks(SubsetProblem(rng.standard_normal((1, 60)), gram(rng, 60), Budget.per_row(40)))[0]
    asked = itertools.count()
    [split], status = sdp_splits(
        [block], block.labels[None], block.keep, 1.0, stopped=lambda: next(asked) > 1
    )
    assert status == "abandoned"
    np.testing.assert_array_equal(split.d, lowest_split(block).d)


def test_refuses_large_matrix_inequalities(rng):
    problem = make_problem(rng, Budget.per_row(3), m=1, n=8)
    assert CvxpySdp(limit=9).refuses(problem) is None
    assert "size 9, more than 8" in (CvxpySdp(limit=8).refuses(problem) or "")
    coupled = make_problem(rng, Budget.columns(3), m=4, n=8)
    assert "size 12" in (CvxpySdp(limit=11).refuses(coupled) or "")
