"""Outer approximation: the optimum of enumeration, bounds that hold, and what a limit leaves."""

import importlib
import os
import signal
import threading
import time

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, solve
from solvers.control import Control
from solvers.foreign import tangents
from solvers.foreign.in_turn import in_turn
from solvers.foreign.mixed_integer import root
from solvers.foreign.outer_approximation import OuterApproximation, Search
from solvers.foreign.tangents import layer
from tests.solvers.oracles import BUDGETS, all_masks, digits_rows, gram, make_problem, optimum

NAME = "outer-approximation"


def hard():
    rng = np.random.default_rng(0)
    return SubsetProblem(rng.standard_normal((1, 60)), gram(rng, 60), Budget.per_row(30))


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_the_optimum_to_a_small_gap(rng, budget, refit):
    problem = make_problem(rng, BUDGETS[budget], refit=refit, gradient=not refit, kind="stacked")
    best = optimum(problem)
    solution = solve(problem, NAME, gap=1e-6)
    assert solution.value == pytest.approx(best, rel=1e-6)
    assert solution.bound <= best
    assert solution.status is Status.OPTIMAL
    assert "bound_above_value" not in solution.stats


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_every_better_mask_satisfies_every_clause(rng, refit):
    problem = make_problem(rng, Budget.per_layer(6), refit=refit, gradient=not refit)
    worst = max(all_masks(problem), key=problem.value)
    (part,) = in_turn(problem, Control()).parts
    part.mask, part.value, part.gap = worst, problem.value(worst), 1e-4  # so that there is something to do
    search = Search(part, layer(problem, root(problem).d), seed=0)
    told = []
    assert search.solve(told.append) is False
    assert len(search.clauses) > 3
    assert search.value == pytest.approx(optimum(problem), rel=1e-9)
    for mask in all_masks(problem):
        kept = ~mask.ravel()
        excluded = any(((fix >= 0) | ~kept).all() and ((fix <= 0) | kept).all() for fix in search.clauses)
        assert not excluded or problem.value(mask) >= search.excluded
    claims = [event.claim for event in told if event.mask is None]
    assert claims == sorted(claims)
    assert claims[-1] <= optimum(problem)


@pytest.mark.parametrize("bits", [2, 8])
def test_coarse_integers_still_bound(monkeypatch, bits):
    monkeypatch.setattr(tangents, "BITS", bits)
    for seed in range(4):
        problem = make_problem(np.random.default_rng(seed), Budget.per_layer(6))
        solution = solve(problem, NAME)
        assert solution.bound <= optimum(problem) <= solution.value * (1 + 1e-12)
        assert solution.status is Status.OPTIMAL
        assert solution.stats["bound_widening"] > 0.0
        assert solution.stats["scale"] == 2.0 ** round(np.log2(solution.stats["scale"]))


def test_ill_conditioned_bounds_hold():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((5, 7)) @ rng.standard_normal((7, 7))
        W = rng.standard_normal((2, 7)) * np.exp(rng.standard_normal((2, 7)))
        problem = SubsetProblem(W, X.T @ X + 1e-3 * np.eye(7), Budget.per_layer(6))
        solution = solve(problem, NAME, gap=0.0)
        best = optimum(problem)
        assert solution.bound <= best
        assert solution.value == pytest.approx(best, rel=1e-6)


def test_it_agrees_with_branch_and_bound_on_rows_of_a_real_layer():
    problem = digits_rows(rows=2, inputs=24, prune=14)
    found = solve(problem, NAME)
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(solve(problem, "branch-and-bound").value, rel=2e-4)
    assert found.stats["rounds"] < found.stats["clauses"]


def test_units_do_not_matter():
    for size in (1e-9, 1e9):
        problem = make_problem(np.random.default_rng(2), Budget.per_row(3))
        scaled = SubsetProblem(problem.W / size, size**3 * problem.hessian.dense(0), problem.budget)
        solution = solve(scaled, NAME)
        assert solution.status is Status.OPTIMAL
        assert solution.value == pytest.approx(size * optimum(problem), rel=1e-4)


def test_ctrl_c_keeps_the_best_so_far(capfd):
    solve(make_problem(np.random.default_rng(0), Budget.per_row(3)), NAME)
    timer = threading.Timer(0.7, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    solution = solve(hard(), NAME, time_limit=20.0)
    timer.cancel()
    assert solution.status is Status.INTERRUPTED
    assert 0.0 < solution.bound < solution.value
    assert capfd.readouterr() == ("", "")


def test_time_limit_keeps_the_best_so_far():
    solution = solve(hard(), NAME, time_limit=0.5)
    assert solution.status is Status.TIME_LIMIT
    assert 0.0 < solution.bound < solution.value <= solve(hard(), "local-search").value


def test_a_search_out_of_time_makes_no_round(rng):
    problem = make_problem(rng, Budget.per_row(3), m=1)
    (part,) = in_turn(problem, Control()).parts
    part.seconds = 1e-9
    search = Search(part, layer(problem, root(problem).d), seed=0)
    time.sleep(1e-3)
    assert search.solve(lambda event: None) is True
    assert search.tally["rounds"] == 0


def test_refuses_what_it_would_never_finish_or_can_not_load(rng, monkeypatch):
    problem = SubsetProblem(rng.standard_normal((40, 20)), np.eye(20), Budget.per_layer(3))
    assert "800 decisions" in (OuterApproximation().refuses(problem) or "")
    assert OuterApproximation().refuses(SubsetProblem(problem.W, problem.hessian, Budget.per_row(3))) is None

    def fail(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ValueError, match="import ortools first"):
        solve(make_problem(rng, Budget.per_row(3)), NAME)
