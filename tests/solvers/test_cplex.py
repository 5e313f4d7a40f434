"""CPLEX: what its licence refuses, and bounds on ill-conditioned problems. See also test_mixed_integer."""

import numpy as np
import pytest
from oracles import gram, optimum

from solvers import Budget, SubsetProblem, solve
from solvers.exact.cplex import FREE, Cplex, CplexPlain, licence


@pytest.fixture(autouse=True)
def _licensed():
    pytest.importorskip("cplex")
    if licence()[0] == 0:
        pytest.skip(licence()[1])


@pytest.mark.parametrize(("solver", "most"), [(Cplex(), 142), (CplexPlain(), 499)])
def test_refuses_in_one_line_just_what_the_licence_forbids(solver, most):
    if licence()[0] != FREE:
        pytest.skip("CPLEX has another licence here")
    rng = np.random.default_rng(0)

    problem = SubsetProblem(rng.standard_normal((1, most)), gram(rng, most), Budget.per_row(1))
    solution = solve(problem, solver, time_limit=1.0)  # taken, and not refused by CPLEX after all
    assert solution.bound <= solution.value
    larger = SubsetProblem(rng.standard_normal((1, most + 1)), np.eye(most + 1), Budget.per_row(1))
    with pytest.raises(ValueError, match="licence") as error:
        solve(larger, solver)
    assert "\n" not in str(error.value)


def test_bounds_stay_below_the_optimum_of_ill_conditioned_problems():
    """A wrong bound shows as one above the value of a mask, or above the optimum."""
    for seed in (16, 31, 126):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((5, 7)) @ rng.standard_normal((7, 7))
        W = rng.standard_normal((2, 7)) * np.exp(rng.standard_normal((2, 7)))
        problem = SubsetProblem(W, X.T @ X + 10.0 ** rng.integers(-4, -1) * np.eye(7), Budget.per_layer(6))
        solution = solve(problem, Cplex(), gap=0.0)
        best = optimum(problem)
        assert solution.bound <= best
        assert solution.value == pytest.approx(best, rel=1e-6)
        assert solution.gap < 1e-4
        assert "bound_above_value" not in solution.stats
