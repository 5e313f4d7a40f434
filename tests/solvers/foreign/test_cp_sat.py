"""CP-SAT: what rounding to integers may hide is taken off its bound."""

import importlib
from fractions import Fraction

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, solve
from solvers.foreign import cp_sat
from solvers.foreign.cp_sat import CpSat, in_integers
from solvers.foreign.models import binary_quadratic
from tests.solvers.oracles import BUDGETS, all_masks, exact_value, make_problem, optimum


@pytest.mark.parametrize("bits", [6, 44])
@pytest.mark.parametrize("budget", ["per_row", "per_layer", "columns"])
def test_integer_cost_less_widening_is_below_the_exact_cost(rng, monkeypatch, budget, bits):
    monkeypatch.setattr(cp_sat, "BITS", bits)
    problem = make_problem(rng, BUDGETS[budget], m=2, n=5, refit=False, gradient=True, kind="stacked")
    integers = in_integers(binary_quadratic(problem))
    total = np.abs(integers.linear).sum() + np.abs(integers.quadratic).sum()
    assert total <= 2.0**bits + integers.linear.size + integers.quadratic.size
    slack = []
    for mask in all_masks(problem):
        x = problem.pools.decisions(mask).astype(float)
        count = (integers.linear * x).sum() + np.einsum("bi,bij,bj->", x, integers.quadratic, x)
        exact = sum(exact_value(problem, r, mask[r]) for r in range(problem.m))
        bound = Fraction(count) / Fraction(integers.scale) - Fraction(integers.widening)
        assert bound <= exact
        slack.append(float(exact - bound))
    assert max(slack) <= 3.0 * integers.widening


def test_coarse_integers_still_bound(rng, monkeypatch):
    monkeypatch.setattr(cp_sat, "BITS", 5)
    widening = []
    for seed in range(12):
        problem = make_problem(np.random.default_rng(seed), Budget.per_row(4), m=1, n=8, refit=False)
        solution = solve(problem, CpSat())
        best = optimum(problem)
        assert solution.bound <= best <= solution.value
        assert "bound_above_value" not in solution.stats
        widening.append(solution.stats["bound_widening"] / best)
        assert solution.status is Status.FEASIBLE or solution.value <= best * (1 + 1e-4)
    assert max(widening) > 1e-3


def test_what_rounding_did_is_in_the_stats(rng):
    problem = make_problem(rng, Budget.per_row(3), refit=False)
    stats = solve(problem, "cp-sat").stats
    assert 0.0 < stats["bound_widening"] < 1e-9 * problem.scale


def test_free_masks_of_a_singular_selection(rng):
    X = rng.standard_normal((3, 6))
    W = np.array([[0.0, 0.0, 0.0, 1.0, -2.0, 0.5]])
    solution = solve(SubsetProblem(W, X.T @ X, Budget.per_row(2), refit=False), "cp-sat")
    assert solution.value == 0.0
    assert -1e-9 < solution.bound <= 0.0


def test_zero_weights_cost_nothing(rng):
    problem = make_problem(rng, Budget.per_layer(4), refit=False)
    zero = type(problem)(np.zeros((2, 6)), problem.hessian, problem.budget, refit=False)
    solution = solve(zero, "cp-sat")
    assert solution.value == solution.bound == 0.0
    assert solution.status is Status.OPTIMAL


def test_refuses_joint_problems_and_large_ones(rng):
    with pytest.raises(ValueError, match="does not do the joint variant"):
        solve(make_problem(rng, Budget.per_row(3)), "cp-sat")
    problem = make_problem(rng, Budget.per_layer(10), m=3, n=8, refit=False)
    assert CpSat(limit=84).refuses(problem) is None
    reason = CpSat(limit=83).refuses(problem)
    assert reason is not None
    assert "84 products" in reason
    assert "\n" not in reason


def test_refuses_where_or_tools_cannot_load(rng, monkeypatch):
    def fail(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ValueError, match="import ortools first"):
        solve(make_problem(rng, Budget.per_row(3), refit=False), "cp-sat")
