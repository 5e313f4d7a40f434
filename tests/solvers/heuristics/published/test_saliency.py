import numpy as np
import pytest

from solvers import Budget, SubsetProblem, solve
from tests.solvers.oracles import BUDGETS, dense_value, make_problem


def alone(problem):
    """`[m, n]` what it costs to prune each entry and no other."""
    costs = np.empty(problem.W.shape)
    for r, j in np.ndindex(*costs.shape):
        mask = np.zeros(costs.shape, dtype=bool)
        mask[r, j] = True
        one = SubsetProblem(
            problem.W, problem.hessian, Budget.per_layer(1), refit=problem.refit, gradient=problem.G
        )
        costs[r, j] = dense_value(one, mask)
    return costs


@pytest.mark.parametrize("kind", ["shared", "stacked"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_the_cheapest_alone_go(budget, refit, kind, rng):
    problem = make_problem(rng, BUDGETS[budget], refit=refit, kind=kind, gradient=not refit)
    costs = alone(problem)
    if problem.pools.coupled:
        costs = costs.sum(0, keepdims=True)
    expected = problem.pools.expand(problem.pools.smallest(costs), problem.m)
    np.testing.assert_array_equal(solve(problem, "saliency").mask, expected)


def test_wanda_weighs_by_the_inputs_norms():
    H = np.array([[4.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.01]])
    problem = SubsetProblem(np.array([[0.6, 1.1, 5.0]]), H, Budget.per_row(1))
    assert solve(problem, "wanda").mask.tolist() == [[False, False, True]]
    problem = SubsetProblem(np.array([[0.5, 1.1, 50.0]]), H, Budget.per_row(1))
    assert solve(problem, "wanda").mask.tolist() == [[True, False, False]]
