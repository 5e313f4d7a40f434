"""Optima of zero, or next to nothing beside the scale: no solver fails, and zero is proven."""

import numpy as np
import pytest

from solvers import Budget, FactorHessian, SubsetProblem, solve
from tests.solvers.oracles import gram

SOLVERS = ["auto", "branch-and-bound", "relaxation"]
N = 20
BUDGETS = {
    "per_row": Budget.per_row(10),
    "per_layer": Budget.per_layer(20),
    "columns": Budget.columns(10),
    "n_of_m": Budget.n_of_m(2, 4),
    "nothing": Budget.per_row(0),
}
CURVATURES = {
    "shared": lambda rng: gram(rng, N),
    "stacked": lambda rng: np.stack([gram(rng, N), gram(rng, N)]),
    "factor": lambda rng: FactorHessian(rng.standard_normal((2 * N, N)), 0.1),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("curvature", CURVATURES)
def test_weights_that_are_mostly_zero_cost_nothing(solver, budget, refit, curvature, rng):
    W = np.zeros((2, N))
    W[:, [3, 8, 11]] = rng.standard_normal((2, 3))
    problem = SubsetProblem(W, CURVATURES[curvature](rng), BUDGETS[budget], refit=refit)
    found = solve(problem, solver)
    assert (found.value, found.bound, found.gap, found.status.value) == (0.0, 0.0, 0.0, "optimal")


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("heavy", [1e4, 1e8])
def test_a_weight_far_above_the_others_is_kept(solver, budget, refit, heavy, rng):
    W = rng.standard_normal((2, N))
    W[:, 0] *= heavy
    problem = SubsetProblem(W, gram(rng, N), BUDGETS[budget], refit=refit)
    found = solve(problem, solver, time_limit=10)
    assert 0.0 <= found.bound <= found.value < 100.0
    assert not found.mask[:, 0].any()


def test_dead_columns_of_a_singular_selection_cost_nothing(rng):
    X = rng.standard_normal((50, 6))
    X[:, 2] = 0.0
    for budget in (Budget.per_row(1), Budget.columns(1), Budget.per_layer(2)):
        problem = SubsetProblem(rng.standard_normal((2, 6)), X.T @ X / 50, budget, refit=False)
        found = solve(problem)
        assert (found.value, found.bound, found.status.value) == (0.0, 0.0, "optimal")
        assert found.mask[:, 2].all()


@pytest.mark.parametrize("solver", ["auto", "branch-and-bound"])
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("prune", [0, 1])
def test_small_layers_are_proven_beside_a_weight_far_above_the_others(solver, refit, prune, rng):
    W = np.array([[1e9, -2.0, 1.0], [1.0, 3.0, -1.0]])
    problem = SubsetProblem(
        W, gram(rng, 3), Budget.per_layer(prune), refit=refit, gradient=rng.standard_normal((2, 3))
    )
    found = solve(problem, solver)
    assert found.status.value == "optimal"
    assert found.bound == pytest.approx(found.value, rel=1e-9, abs=0.0)
    if not refit and not prune:
        assert found.value == found.bound == 0.0
