"""Greedy on factors that are never formed, against greedy on their matrices."""

import numpy as np
import pytest

from solvers import BlockDiagonalHessian, Budget, FactorHessian, SubsetProblem, solve
from solvers.bounds.factor import image as factor_image
from solvers.hessian import factor
from solvers.heuristics.factor_rows import greedy_factor_mask
from tests.solvers.oracles import optimum

VARIANTS = pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])


def make(rng, *, refit, budget, m=2, n=20, N=6):
    H = FactorHessian(rng.standard_normal((N, n)), 0.1)
    gradient = None if refit else 0.2 * rng.standard_normal((m, n))
    return SubsetProblem(rng.standard_normal((m, n)), H, budget, refit=refit, gradient=gradient)


@VARIANTS
@pytest.mark.parametrize("budget", [Budget.per_row([9, 14]), Budget.n_of_m(2, 5)], ids=["rows", "n_of_m"])
def test_one_at_a_time_it_is_greedy(budget, refit, rng):
    """With so few left to prune, every step is of one entry, as on a dense matrix."""
    problem = make(rng, refit=refit, budget=budget)
    dense = SubsetProblem(problem.W, problem.hessian.dense(0), budget, refit=refit, gradient=problem.G)
    expected = solve(dense, "greedy").mask
    np.testing.assert_array_equal(greedy_factor_mask(problem), expected)


def test_over_a_layer_it_is_the_optimal_brain_surgeon(rng):
    problem = make(rng, refit=True, budget=Budget.per_layer(25))
    dense = SubsetProblem(problem.W, problem.hessian.dense(0), problem.budget)
    np.testing.assert_array_equal(greedy_factor_mask(problem), solve(dense, "obs").mask)


@VARIANTS
def test_larger_steps_are_nearly_as_good(refit, rng):
    problem = make(rng, refit=refit, budget=Budget.per_row(250), m=1, n=300, N=30)
    dense = SubsetProblem(
        problem.W, problem.hessian.dense(0), problem.budget, refit=refit, gradient=problem.G
    )
    single, stepped = solve(dense, "greedy"), problem.value(greedy_factor_mask(problem))
    magnitude = solve(problem, "magnitude").value
    assert stepped - single.value < 0.2 * (magnitude - single.value)


@pytest.mark.parametrize("solver", ["greedy", "obs"])
def test_solvers_prune_what_is_never_formed(solver, rng, monkeypatch):
    monkeypatch.setattr(factor, "WIDE", 10)
    monkeypatch.setattr(FactorHessian, "dense", lambda *_: pytest.fail("formed the dense matrix"))
    problem = make(rng, refit=True, budget=Budget.per_row(12))
    found = solve(problem, solver)
    assert problem.pools.violation(found.mask) is None
    assert found.value <= solve(problem, "magnitude").value
    with pytest.raises(ValueError, match="too many for a matrix"):
        solve(make(rng, refit=True, budget=Budget.columns(5)), solver)


def test_a_sketch_serves_large_images(rng, monkeypatch):
    monkeypatch.setattr(factor_image, "RANK", 6)
    monkeypatch.setattr(factor, "SKETCH", 8)
    monkeypatch.setattr(factor, "SPARE", 2)
    problem = make(rng, refit=True, budget=Budget.per_layer(30), m=1, n=40, N=12)
    assert problem.value(greedy_factor_mask(problem)) < solve(problem, "magnitude").value


def test_a_stop_prunes_the_rest_at_once(rng):
    problem = make(rng, refit=True, budget=Budget.n_of_m(2, 5))
    mask = greedy_factor_mask(problem, stopped=lambda: True)
    assert problem.pools.violation(mask) is None
    saliency = problem.W**2 / np.diag(np.linalg.inv(problem.hessian.dense(0)))
    np.testing.assert_array_equal(mask, problem.pools.smallest(saliency))


def test_blocks_are_pruned_together(rng):
    parts = [FactorHessian(rng.standard_normal((3, 5)), 0.1) for _ in range(2)]
    problem = SubsetProblem(rng.standard_normal((1, 10)), BlockDiagonalHessian(parts), Budget.per_layer(6))
    value = problem.value(greedy_factor_mask(problem))
    assert optimum(problem) <= value <= 1.5 * optimum(problem)
