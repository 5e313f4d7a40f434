"""Answers that rounding would swallow: never called proven, and right where masks are few."""

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, curve, solve, solve_together
from solvers.exact.enumeration import FEW, least, least_at
from solvers.problem import EPS
from tests.solvers.exactly import exact_optimum, exact_row_values
from tests.solvers.oracles import make_problem


def swallowed(budget, power=40, m=1):
    """Two inputs that are all but one: the shift of the gradient is `2^power` times what masks differ by."""
    e = 2.0**-power
    H = np.array([[1.0 + e, 1.0], [1.0, 1.0 + e]])
    return SubsetProblem(np.tile([[-3.0, -1.0]], (m, 1)), H, budget, gradient=np.tile([[-3.0, 3.0]], (m, 1)))


@pytest.mark.parametrize("power", [30, 40, 44])
@pytest.mark.parametrize("budget", [Budget.per_row(1), Budget.per_layer(2), Budget.columns(1)])
@pytest.mark.parametrize("solver", ["auto", "branch-and-bound", "brute-force"])
def test_few_masks_are_decided_by_their_costs(power, budget, solver):
    problem = swallowed(budget, power, m=2)
    best = float(exact_optimum(problem)[0])
    told = []
    found = solve(problem, solver, callback=lambda step: told.append(step.bounds) and False)
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(best, rel=1e-8)
    assert found.bound <= best
    assert all(step.lower <= best <= step.upper for step in told)


@pytest.mark.parametrize("power", [30, 40, 44])
def test_curves_prove_what_their_bounds_prove(power):
    problem = swallowed(Budget.per_layer(1), power)
    found = curve(problem)
    assert found.status is Status.OPTIMAL
    for k in range(3):
        mask = found.masks(k)
        best = float(exact_optimum(swallowed(Budget.per_row(k), power))[0])
        assert found.proven[0, k]
        assert float(exact_row_values(problem, mask)[0]) == pytest.approx(best, rel=1e-8)
        assert found.lower[0, k] <= best


def test_noise_above_the_gap_proves_nothing(monkeypatch):
    monkeypatch.setattr("solvers.exact.enumeration.FEW", 0)
    problem = swallowed(Budget.per_row(1))
    found = curve(problem)
    assert (found.values - found.lower > 1e-4 * np.abs(found.values))[0, 1]
    assert not found.proven[0, 1]
    assert found.status is Status.FEASIBLE
    assert solve(problem).status is Status.FEASIBLE


@pytest.mark.parametrize("power", [30, 40])
def test_layers_together(power):
    problems = [swallowed(Budget.per_layer(1), power), swallowed(Budget.per_layer(1), power - 3)]
    found = solve_together(problems)
    assert sum(int(mask.sum()) for mask in found.masks) == 2
    costs = [
        [float(exact_optimum(swallowed(Budget.per_row(k), each))[0]) for k in range(3)]
        for each in (power, power - 3)
    ]
    best = min(costs[0][k] + costs[1][2 - k] for k in range(3))
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(best, rel=1e-8)
    assert found.bound <= best


@pytest.mark.parametrize(
    "budget", [Budget.per_row(2), Budget.per_layer(5), Budget.columns(2), Budget.n_of_m(1, 3)]
)
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("movable", [(), (3,)])
def test_enumeration_encloses_the_optimum(budget, refit, movable, rng):
    problem = make_problem(
        rng, budget, n=6 + len(movable), refit=refit, kind="stacked", gradient=True, movable=movable
    )
    best, found = exact_optimum(problem)[0], least(problem, lambda: None)
    assert found.bound <= best
    assert found.value == pytest.approx(float(best), rel=4 * EPS)
    assert problem.value(found.mask) == pytest.approx(float(best), rel=1e-8)


def test_many_masks_and_stopped_searches_are_left_alone(rng):
    problem = make_problem(rng, Budget.per_row(10), n=20)
    assert least(problem, lambda: None) is None
    assert least_at(problem, 0, 10, lambda: None) is None
    assert least_at(problem, 0, 1, lambda: True) is None
    assert FEW >= 20 >= least_at(problem, 0, 1, lambda: None).mask.sum() == 1
