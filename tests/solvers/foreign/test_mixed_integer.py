"""Foreign solvers on both models: they agree with enumeration, stop when told, and say nothing."""

import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, solve
from solvers.foreign.mixed_integer import MixedInteger, everything, licence
from solvers.solve import registry
from tests.solvers.oracles import BUDGETS, gram, make_problem, optimum

INSTALLED = [name for name, each in registry().items() if isinstance(each, MixedInteger) and each.installed()]
if not INSTALLED:
    pytest.skip("no mixed-integer solver is installed", allow_module_level=True)


@pytest.fixture(params=INSTALLED)
def name(request):
    size, reason = licence(type(registry()[request.param]))
    if size == 0:
        pytest.skip(reason)
    return request.param


def hard(name):
    n = 30 if name == "xpress" else 48 if name == "xpress-plain" else 60  # as many as its licence takes
    rng = np.random.default_rng(0)
    H = np.ones((n, n)) + gram(rng, n, damping=0.02) if name == "xpress" else gram(rng, n)
    return SubsetProblem(rng.standard_normal((1, n)), H, Budget.per_row(n // 2))


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", ["per_layer", "columns"])
def test_proves_the_optimum_to_a_small_gap(rng, name, budget, refit):
    problem = make_problem(rng, BUDGETS[budget], refit=refit, gradient=not refit, kind="stacked")
    best = optimum(problem)
    solution = solve(problem, name, gap=1e-5)
    assert solution.value == pytest.approx(best, rel=1e-5)
    assert solution.bound <= best
    assert solution.status is Status.OPTIMAL
    assert 0.0 < solution.stats["bound_widening"] < 1e-5 * abs(best)


def test_ill_conditioned_bounds_hold(name):
    """Where Gurobi, given cones, claimed bounds above the optimum."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((5, 7)) @ rng.standard_normal((7, 7))
        W = rng.standard_normal((2, 7)) * np.exp(rng.standard_normal((2, 7)))
        problem = SubsetProblem(W, X.T @ X + 1e-3 * np.eye(7), Budget.per_layer(6))
        solution = solve(problem, name, gap=0.0)
        best = optimum(problem)
        assert solution.bound <= best
        assert solution.value == pytest.approx(best, rel=1e-6)
        assert "bound_above_value" not in solution.stats


def test_units_do_not_matter(name):
    for size in (1e-9, 1e9):
        rng = np.random.default_rng(2)
        problem = make_problem(rng, Budget.per_row(3))
        scaled = SubsetProblem(problem.W / size, size**3 * problem.hessian.dense(0), problem.budget)
        solution = solve(scaled, name)
        assert solution.status is Status.OPTIMAL
        assert solution.value == pytest.approx(size * optimum(problem), rel=1e-4)


def test_free_masks_of_a_singular_selection(name):
    """Dead weights cost nothing, and a semidefinite Hessian leaves only rounding below that."""
    W = np.array([[0.0, 0.0, 0.0, 1.0, -2.0, 0.5]])
    X = np.random.default_rng(0).standard_normal((3, 6))
    solution = solve(SubsetProblem(W, X.T @ X, Budget.per_row(2), refit=False), name)
    assert solution.value == 0.0
    assert -1e-9 < solution.bound <= 0.0


def test_says_nothing(name, capfd):
    solve(make_problem(np.random.default_rng(0), Budget.per_row(3)), name)
    solve(hard(name), name, time_limit=0.3)
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


def test_time_limit_keeps_the_best_so_far(name):
    solution = solve(hard(name), name, time_limit=0.5)
    assert solution.status is Status.TIME_LIMIT
    assert np.isfinite(solution.bound)
    assert solution.value <= solve(hard(name), "local-search").value


def test_ctrl_c_keeps_the_best_so_far(name, capfd):
    solve(make_problem(np.random.default_rng(0), Budget.per_row(3)), name)  # what comes before the clock
    timer = threading.Timer(0.7, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    solution = solve(hard(name), name, time_limit=20.0)
    timer.cancel()
    assert solution.status is Status.INTERRUPTED
    assert np.isfinite(solution.bound)
    told = capfd.readouterr()
    assert told.out.replace("  User interrupted, stopping...\n", "") == ""  # COPT, if it hears of it first
    assert told.err == ""


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_without_our_incumbent_the_optimum_is_the_same(rng, name, refit):
    solver = registry()[name]
    problem = make_problem(rng, Budget.per_layer(5), refit=refit, gradient=not refit)
    informed, blind = solve(problem, solver), solve(problem, replace(solver, informed=False))
    assert blind.status is Status.OPTIMAL
    assert blind.value == pytest.approx(optimum(problem), rel=1e-9)
    if refit:  # wider ranges, wider bound
        assert blind.stats["bound_widening"] > informed.stats["bound_widening"]


@pytest.mark.parametrize("kind", ["shared", "stacked"])
def test_no_joint_mask_costs_more_than_pruning_everything(rng, kind):
    problem = make_problem(rng, Budget.per_layer(11), kind=kind)
    every = np.ones(problem.W.shape, dtype=bool)
    whole = SubsetProblem(problem.W, problem.hessian, Budget.per_layer(every.size))
    assert everything(problem) == pytest.approx(whole.value(every))
    assert everything(problem) > optimum(problem)
