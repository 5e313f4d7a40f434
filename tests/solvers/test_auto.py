import time

import numpy as np
import pytest

from solvers import Budget, Status, solve
from solvers.auto import Auto
from solvers.control import Control
from tests.solvers.oracles import BUDGETS, make_problem


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_small_problems_are_proven(budget, refit, rng):
    problem = make_problem(rng, BUDGETS[budget], refit=refit)
    found = solve(problem)
    assert found.solver == "auto"
    assert found.status is Status.OPTIMAL
    assert found.stats["ran"] == ["branch-and-bound"]
    assert found.value == pytest.approx(solve(problem, "brute-force").value, rel=1e-4)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_large_problems_get_a_strong_mask_and_a_bound(budget, refit, rng):
    problem = make_problem(rng, BUDGETS[budget], refit=refit)
    found = solve(problem, Auto(exact_inputs=5))
    assert found.stats["ran"][0] == "tabu"
    assert found.stats["ran"][-1] == "relaxation"
    assert found.value <= solve(problem, "local-search").value * (1 + 1e-12)
    assert found.value <= solve(problem, "relaxation").value * (1 + 1e-12)
    assert found.bound == pytest.approx(solve(problem, "relaxation").bound, rel=1e-12)
    assert found.trace[-1].bounds == found.bounds


def test_a_warm_start_is_improved_not_dropped(rng):
    problem = make_problem(rng, Budget.per_row(8), n=16)
    best = solve(problem, "branch-and-bound")
    found = solve(problem, Auto(exact_inputs=5), warm_start=best.mask)
    assert found.value <= best.value * (1 + 1e-12)


def test_interruption_after_the_search_skips_the_bound(rng):
    problem = make_problem(rng, Budget.per_row(3))
    found = solve(problem, Auto(exact_inputs=5), callback=lambda step: True)
    assert found.status is Status.INTERRUPTED
    assert "relaxation" not in found.stats["ran"]
    assert found.bound == -np.inf


def test_patience_is_the_time_limit_where_none_is_given(rng):
    problem = make_problem(rng, Budget.per_row(3))
    for given, expected in ((None, 7.0), (3.0, 3.0)):
        control = Control()
        control.deadline = None if given is None else control.started + given
        Auto(patience=7.0).run(problem, control)
        assert control.deadline == pytest.approx(control.started + expected)


def test_patience_that_is_used_up_leaves_the_best_mask(rng):
    problem = make_problem(rng, Budget.per_row(20), n=40)
    solve(problem, "branch-and-bound", time_limit=0.01)
    start = time.perf_counter()
    found = solve(problem, Auto(patience=1e-3), gap=0.0)
    assert found.status is Status.TIME_LIMIT
    assert time.perf_counter() - start < 30.0
    assert problem.pools.violation(found.mask) is None
