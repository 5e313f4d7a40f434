"""The search of rows."""

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, solve
from solvers.allocation import allocate
from solvers.heuristics.rows.search import Effort, RowSearch, row_data, state
from solvers.heuristics.rows.shares import Shares
from solvers.heuristics.tabu import Tabu
from tests.solvers.oracles import gram, make_problem

VARIANTS = pytest.mark.parametrize(
    ("refit", "gradient"), [(True, False), (False, True)], ids=["joint", "selection with gradient"]
)
BUDGETS = {
    "per_row": Budget.per_row([2, 4, 6]),
    "n_of_m": Budget.n_of_m(2, 4),
    "per_layer": Budget.per_layer(13),
}


@VARIANTS
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("seed", range(6))
def test_small_rows_end_at_the_optimum(budget, seed, refit, gradient):
    problem = make_problem(
        np.random.default_rng(seed), BUDGETS[budget], m=3, n=8, refit=refit, gradient=gradient
    )
    best = solve(problem, "brute-force")
    assert best.status is Status.OPTIMAL
    assert solve(problem, "tabu").value == pytest.approx(best.value, rel=1e-9)


def test_columns_of_a_selection_end_at_the_optimum(rng):
    problem = make_problem(rng, Budget.columns(5), m=3, n=12, refit=False, gradient=True, kind="stacked")
    assert solve(problem, "tabu").value == pytest.approx(solve(problem, "brute-force").value, rel=1e-9)


@pytest.mark.parametrize("movable", [(), (1, 4)])
@pytest.mark.parametrize("gradient", [True, False])
def test_joint_columns_end_at_the_optimum(gradient, movable, rng):
    problem = make_problem(rng, Budget.columns(5), m=3, n=12, gradient=gradient, movable=movable)
    best = solve(problem, "brute-force")
    assert solve(problem, "tabu").value == pytest.approx(best.value, rel=1e-9)
    assert solve(problem, Tabu(rounds=3), warm_start=best.mask).value == pytest.approx(best.value, rel=1e-9)


@VARIANTS
@pytest.mark.parametrize("budget", ["per_row", "per_layer"])
def test_movable_columns_are_taken_out(budget, refit, gradient, rng):
    problem = make_problem(
        rng, BUDGETS[budget], m=3, n=9, refit=refit, gradient=gradient, movable=(2,), kind="stacked"
    )
    assert solve(problem, "tabu").value == pytest.approx(solve(problem, "brute-force").value, rel=1e-9)


def test_joint_columns_with_a_curvature_a_row_are_refused(rng):
    with pytest.raises(ValueError, match="take local-search"):
        solve(make_problem(rng, Budget.columns(3), kind="stacked"), "tabu")


def rows(seed, budget, *, m=4, n=40, refit=True):
    rng = np.random.default_rng(seed)
    return SubsetProblem(rng.standard_normal((m, n)), gram(rng, n, damping=1e-3), budget, refit=refit)


@pytest.mark.parametrize("budget", [Budget.per_row(30), Budget.per_layer(120), Budget.n_of_m(2, 8)])
def test_it_goes_below_local_search(budget):
    problem = rows(0, budget)
    local = solve(problem, "local-search").value
    assert solve(problem, "tabu").value < 0.99 * local


@pytest.mark.parametrize("budget", [Budget.per_row(30), Budget.per_layer(120)])
def test_answers_depend_on_the_seed_not_on_threads(budget, monkeypatch):
    problem = rows(1, budget)
    solver = Tabu(rounds=3)
    first = solve(problem, solver, seed=7)
    monkeypatch.setattr("solvers.runtime.parallel.workers", lambda: 4)
    again = solve(problem, solver, seed=7)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert first.stats == again.stats
    assert first.stats["swaps"] != solve(problem, solver, seed=8).stats["swaps"]


@pytest.mark.parametrize("budget", [Budget.per_row(30), Budget.per_layer(120)])
def test_it_starts_from_the_better_of_greedy_and_the_warm_start(budget):
    problem = rows(2, budget)
    greedy, best = solve(problem, "greedy"), solve(problem, "tabu")
    again = solve(problem, Tabu(rounds=0), warm_start=best.mask)
    assert again.trace[0].bounds.upper == pytest.approx(best.value)
    assert again.value <= best.value
    bad = solve(problem, "magnitude")
    assert bad.value > greedy.value
    warmed = solve(problem, Tabu(rounds=0), warm_start=bad.mask)
    assert warmed.trace[0].bounds.upper == pytest.approx(greedy.value)


def test_with_a_time_limit_it_goes_on_until_then():
    problem = rows(3, Budget.per_row(30))
    found = solve(problem, Tabu(), time_limit=0.3)
    assert found.status is Status.TIME_LIMIT
    assert found.stats["rounds"] > 5
    assert found.value <= solve(problem, Tabu(rounds=1)).value


def test_a_time_limit_may_be_used_in_part(clock):
    problem, clock.tick = rows(3, Budget.per_row(30)), 0.01
    found = solve(problem, Tabu(share=0.1), time_limit=300.0)
    assert found.status is Status.FEASIBLE
    assert found.seconds == pytest.approx(30.0, abs=1.0)
    assert found.stats["rounds"] > 5
    assert solve(problem, Tabu(rounds=3), time_limit=60.0).stats["rounds"] == 3


@pytest.mark.parametrize(
    "budget", [Budget.per_row([10, 30, 30, 30]), Budget.per_layer(100), Budget.columns(30)]
)
def test_without_a_time_limit_long_walks_are_fewer(budget):
    problem = rows(3, budget)
    most = Tabu(rounds=100, swaps=np.inf)
    few = solve(problem, Tabu(rounds=100, swaps=40.0))
    assert 0 < few.stats["rounds"] < solve(problem, most).stats["rounds"]
    assert few.stats["swaps"] < solve(problem, most).stats["swaps"] / 2
    assert solve(problem, Tabu(rounds=100, swaps=0.0)).stats["rounds"] == 0
    limited = solve(problem, Tabu(swaps=0.0), time_limit=0.1)
    assert limited.stats["rounds"] > 0


def test_a_wide_rows_walks_end_by_the_work_they_are():
    rng = np.random.default_rng(0)
    problem = rows(0, Budget.per_row(500), m=1, n=600)
    data = row_data(problem, 0)
    mask = problem.pools.smallest(rng.random((1, 600)))[0]
    search = RowSearch(data, mask, float(state(data, mask.copy()).cost[0]), [0], Effort())
    search.round()
    assert search.spent == pytest.approx(search.swaps / 6)


def test_it_stops_where_there_is_nothing_left_to_choose():
    problem = rows(4, Budget.per_row([0, 1, 39, 40]))
    found = solve(problem, "tabu", time_limit=60)
    assert found.status is Status.FEASIBLE
    assert found.value == pytest.approx(solve(problem, "brute-force").value)


@pytest.mark.parametrize("budget", [Budget.per_row(30), Budget.per_layer(120)])
def test_interruption_keeps_the_best_mask(budget):
    problem = rows(5, budget)
    seen = []

    def callback(progress):
        seen.append(progress)
        return len(seen) == 2

    found = solve(problem, "tabu", callback=callback)
    assert found.status is Status.INTERRUPTED
    assert len(seen) == 2
    assert found.value == pytest.approx(seen[1].bounds.upper)
    assert found.value < seen[0].bounds.upper


@VARIANTS
def test_shares_are_allotted_exactly_among_what_is_known(refit, gradient, rng):
    problem = make_problem(rng, Budget.per_layer(18), m=4, n=10, refit=refit, gradient=gradient)
    mask = problem.pools.smallest(rng.random((4, 10)))
    shares = Shares(problem, mask, 10, 0, Effort())
    shares.rebalance(lambda: None)
    searches = shares.searches
    assert sum(shares.counts) == 18
    values = []
    for r, search in enumerate(searches):
        assert search.mask.sum() == shares.counts[r]
        assert search.value == pytest.approx(state(search.data, search.mask.copy()).cost[0], rel=1e-9)
        curve = [shares._known[r][k].value for k in range(11)]
        assert curve[0] == pytest.approx(0.0, abs=1e-12)
        values.append(np.array(curve))
    best = allocate(values, 18)
    total = sum(curve[k] for curve, k in zip(values, best, strict=True))
    assert sum(search.value for search in searches) == pytest.approx(total, rel=1e-8)
    assert total < problem.value(mask)


def test_a_search_counts_its_masks(rng):
    problem = make_problem(rng, Budget.n_of_m(1, 3), m=1, n=6)
    mask = problem.pools.smallest(rng.random((1, 6)))[0]
    data = row_data(problem, 0)
    search = RowSearch(data, mask, float(state(data, mask.copy()).cost[0]), [0], Effort(patience=8))
    assert not search.exhausted
    rounds = 0
    while not search.exhausted:
        search.round()
        rounds += 1
    assert 20 * 8 <= search.swaps < 20 * 8 + 50
    assert rounds > 2
    assert search.value == pytest.approx(solve(problem, "brute-force").value)


def test_searches_beside_the_present_counts(rng):
    problem = make_problem(rng, Budget.per_layer(9), m=2, n=8)
    shares = Shares(problem, problem.pools.smallest(rng.random((2, 8))), 2, 0, Effort())
    assert shares.beside(0) == []
    shares.rebalance(lambda: None)
    counts = shares.counts.tolist()
    for turn, step in enumerate([1, -1, 2, -2, 1, -1]):
        found = [int(search.mask.sum()) for search in shares.beside(turn)]
        assert found == [k + step for k in counts if 0 <= k + step <= 8]


@pytest.mark.parametrize("relinks", [0.0, 1.0])
def test_rounds_shake_or_relink(relinks):
    problem = rows(0, Budget.per_row(30))
    start = solve(problem, "local-search")
    total = 0.0
    for r, mask in enumerate(start.mask):
        data = row_data(problem, r)
        value = float(state(data, mask.copy()).cost[0])
        search = RowSearch(data, mask, value, [r], Effort(patience=10, relinks=relinks))
        for _ in range(30):
            search.round()
        assert search.mask.sum() == 30
        assert search.value == pytest.approx(state(data, search.mask.copy()).cost[0], rel=1e-9)
        total += search.value
    assert total < 0.995 * start.value
