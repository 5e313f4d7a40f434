import time

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, solve
from solvers.heuristics import portfolio
from solvers.heuristics.local_search import LocalSearch
from solvers.heuristics.portfolio import NARROW, Portfolio
from tests.solvers.oracles import gram, make_problem

M, N = 6, NARROW + 16
BUDGETS = {
    "per_row": Budget.per_row(N // 2),
    "row_counts": Budget.per_row([10, 30, 60, 90, 120, N - 4]),
    "per_layer": Budget.per_layer(M * N // 2),
    "n_of_m": Budget.n_of_m(2, 4),
}


@pytest.fixture(scope="module")
def wide():
    rng = np.random.default_rng(1)
    H, W = gram(rng, N, damping=0.05), rng.standard_normal((M, N))
    return lambda budget: SubsetProblem(W, H, BUDGETS.get(budget, budget))


@pytest.mark.parametrize("budget", BUDGETS)
def test_it_ends_where_no_swap_gains_and_below_the_others(budget, wide):
    problem = wide(budget)
    found = solve(problem, "portfolio")
    assert found.stats["ran"][0] == "annealing"
    assert {"swaps", "reheat"} <= set(found.stats["ran"])
    swapped, _, _ = LocalSearch().improve(problem, found.mask)
    assert problem.value(swapped) >= found.value * (1 - 1e-6)
    for other in ("alps", "sparsegpt", "saliency", "local-search"):
        assert found.value <= solve(problem, other).value * (1 + 1e-9)


def test_more_time_is_not_wasted_and_less_is_kept_to(wide):
    problem = wide("per_row")
    solve(problem, "portfolio", time_limit=0.2)
    values = []
    for limit in (0.001, 0.3):
        start = time.perf_counter()
        values.append(solve(problem, "portfolio", time_limit=limit).value)
        assert time.perf_counter() - start < 5.0
    assert values[1] < 0.98 * values[0]


def test_what_ran_is_told_with_what_it_gained(wide):
    problem = wide("per_row")
    found = solve(problem, Portfolio(stages=3))
    rounds = found.stats["rounds"]
    gained = sum(record["gain"] for record in rounds.values())
    started, _ = portfolio.Annealing(portfolio.Layer(problem, leveled=True)).start(stages=3)
    assert found.value == pytest.approx(problem.value(started.numpy()) * (1 - gained), rel=0.03)
    assert gained > 0.05
    assert all(record["seconds"] > 0 and record["rounds"] >= 1 for record in rounds.values())


def test_next_to_no_time_is_spent_on_one_pass(wide, monkeypatch):
    monkeypatch.setattr(portfolio, "BATCHED", 1e3)
    problem = wide("n_of_m")
    found = solve(problem, "portfolio", time_limit=5.0)
    assert found.stats["ran"] == ["sparsegpt"]
    np.testing.assert_array_equal(found.mask, solve(problem, "sparsegpt").mask)
    columns = solve(wide(Budget.columns(40)), Portfolio(memory=0), time_limit=0.5)
    assert columns.stats["ran"][0] == "annealing"


def test_its_share_of_the_time_is_what_it_takes(wide):
    start = time.perf_counter()
    found = solve(wide("per_row"), Portfolio(share=0.05, patience=10**6), time_limit=6.0)
    assert time.perf_counter() - start < 4.0
    assert found.status is Status.FEASIBLE


def test_tableaux_that_do_not_fit_are_not_made(wide):
    found = solve(wide("per_row"), Portfolio(memory=1000))
    assert "swaps" not in found.stats["ran"]


def test_a_warm_start_is_kept_row_by_row(wide):
    problem = wide("per_row")
    best = solve(problem, "portfolio")
    quick = solve(problem, Portfolio(stages=1, memory=0, patience=1), warm_start=best.mask)
    assert (problem.row_values(quick.mask) <= problem.row_values(best.mask) * (1 + 1e-4)).all()


def test_an_interruption_leaves_a_mask_no_worse_than_the_one_pass_pick(wide):
    problem = wide("per_row")
    found = solve(problem, Portfolio(), callback=lambda step: True)
    assert found.status is Status.INTERRUPTED
    assert problem.pools.violation(found.mask) is None


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_others_take_what_is_no_wide_layer(refit, rng):
    narrow = solve(make_problem(rng, Budget.per_row(3), refit=refit), "portfolio")
    assert narrow.stats["ran"] == ["tabu"]
    columns = solve(make_problem(rng, Budget.columns(3), refit=True, kind="stacked"), "portfolio")
    assert columns.stats["ran"] == ["local-search"]
    stacked = make_problem(rng, Budget.per_row(70), n=N, refit=refit, kind="stacked")
    assert solve(stacked, "portfolio").stats["ran"] == ["local-search"]
