"""The binary quadratic programme against the problem's own values, and against exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.form.binary_quadratic import binary_quadratic
from tests.solvers.oracles import BUDGETS, all_masks, exact_value, make_problem


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("kind", ["shared", "stacked", "factor"])
@pytest.mark.parametrize("gradient", [True, False])
def test_objective_is_the_problems_value(rng, budget, kind, gradient):
    problem = make_problem(rng, BUDGETS[budget], refit=False, kind=kind, gradient=gradient)
    programme = binary_quadratic(problem)
    assert programme.size == problem.pools.labels.size
    np.testing.assert_array_equal(
        np.bincount(programme.labels.ravel()) >= programme.prune, np.full(len(programme.prune), True)
    )
    for mask in list(all_masks(problem))[::5]:
        x = problem.pools.decisions(mask)
        assert programme.value(x) == pytest.approx(problem.value(mask), rel=1e-10, abs=1e-12 * problem.scale)


def test_rounding_covers_the_exact_cost():
    rng = np.random.default_rng(4)
    size = np.exp(4.0 * rng.standard_normal(5))
    X = rng.standard_normal((9, 5)) * size
    problem = SubsetProblem(
        rng.standard_normal((3, 5)) / size, X.T @ X, Budget.columns(2), refit=False,
        gradient=rng.standard_normal((3, 5)),
    )  # fmt: skip
    programme = binary_quadratic(problem)
    worst = 0.0
    for mask in all_masks(problem):
        x = problem.pools.decisions(mask)[0]
        exact = sum(exact_value(problem, r, mask[r]) for r in range(3))
        index = np.flatnonzero(x)
        stored = sum(Fraction(programme.A[0, i, j]) for i in index for j in index) / 2
        stored -= sum(Fraction(programme.c[0, i]) for i in index)
        error = abs(float(exact - stored))
        worst = max(worst, error)
        assert error <= programme.rounding[0, index].sum()
    assert worst > 0.0


def test_joint_problems_are_not_binary_quadratic(rng):
    with pytest.raises(ValueError, match="refit=False"):
        binary_quadratic(make_problem(rng, Budget.per_row(2)))
