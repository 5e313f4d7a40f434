import os
import subprocess
import sys

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, solve
from solvers.heuristics import portfolio
from solvers.heuristics.layer.annealing import STEPS, Annealing
from solvers.heuristics.layer.scaled import Layer
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


def test_more_time_is_not_wasted_and_less_is_kept_to(wide, clock):
    problem, clock.tick = wide("per_row"), 0.001
    short, long = (solve(problem, "portfolio", time_limit=limit) for limit in (0.01, 3.0))
    assert short.status is Status.TIME_LIMIT
    assert short.seconds < 0.1 < long.seconds < 3.1
    assert long.value < 0.98 * short.value


def test_what_ran_is_told_with_what_it_gained(wide):
    problem = wide("per_row")
    found = solve(problem, Portfolio(stages=3))
    rounds = found.stats["rounds"]
    gained = sum(record["gain"] for record in rounds.values())
    started, _ = Annealing(Layer(problem, leveled=True)).start(stages=3)
    assert found.value == pytest.approx(problem.value(started.numpy()) * (1 - gained), rel=0.03)
    assert gained > 0.05
    assert all(record["seconds"] > 0 and record["rounds"] >= 1 for record in rounds.values())


def test_next_to_no_time_is_spent_on_one_stage(wide):
    for budget in ("per_row", "n_of_m", "per_layer"):
        problem = wide(budget)
        found = solve(problem, "portfolio", time_limit=1e-6)
        assert (found.stats["steps"], found.stats["ran"]) == (STEPS, ["annealing"])
        assert found.value < min(solve(problem, other).value for other in ("saliency", "sparsegpt"))
    columns = solve(wide(Budget.columns(40)), Portfolio(memory=0), time_limit=0.5)
    assert columns.stats["ran"][0] == "annealing"


def test_the_refit_is_within_the_time(monkeypatch, clock):
    rng = np.random.default_rng(3)
    problem = SubsetProblem(rng.standard_normal((4, N)), gram(rng, N), Budget.per_row(N // 2))
    clock.tick, refitting = 0.001, 4.0
    monkeypatch.setattr(portfolio, "seconds", lambda *_: refitting)
    found = solve(problem, Portfolio(patience=10**6), time_limit=6.0)
    assert found.seconds == pytest.approx(2.0, abs=0.2)
    assert found.status is Status.FEASIBLE


@pytest.mark.parametrize("budget", ["per_row", "row_counts", "n_of_m"])
def test_rows_are_searched_part_by_part_where_memory_asks_for_it(budget, wide, monkeypatch):
    problem = wide(budget)
    parts = []
    run = portfolio.Rounds.run
    monkeypatch.setattr(
        portfolio.Rounds, "run", lambda self, *args: parts.append(self.rows) or run(self, *args)
    )
    whole = solve(problem, Portfolio(stages=20))
    assert parts == [slice(0, M)]
    need = portfolio.SHARED_BYTES * N * N + portfolio.KEPT_BYTES * M * N
    found = solve(problem, Portfolio(stages=20, memory=need + 4 * portfolio.ROW_BYTES * N))
    assert parts[1:] == [slice(0, 3), slice(3, 6)]
    assert found.value == pytest.approx(whole.value, rel=0.05)
    assert set(whole.stats["rounds"]) == {"reheat", "swaps"}
    assert set(found.stats["rounds"]) == {"reheat"}, "no tableau fits beside the rows"
    solve(wide("per_layer"), Portfolio(stages=2, memory=0))
    assert parts[3:] == [slice(0, M)]


def test_progress_falls_to_the_answer_and_its_masks_keep_the_budget(wide):
    problem, told = wide("per_row"), []
    found = solve(problem, Portfolio(stages=3), callback=told.append)
    uppers = [progress.bounds.upper for progress in told]
    assert len(told) > 3
    assert uppers == sorted(uppers, reverse=True)
    assert found.value <= uppers[-1] <= found.value + problem.rounding
    for progress in told:
        assert problem.value(progress.mask) == pytest.approx(progress.bounds.upper, rel=2e-4)
        assert problem.value(progress.mask) <= progress.bounds.upper * (1 + 1e-12)


def test_its_share_of_the_time_is_what_it_takes(wide, clock):
    clock.tick = 0.001
    found = solve(wide("per_row"), Portfolio(share=0.05, patience=10**6), time_limit=40.0)
    assert found.seconds == pytest.approx(2.0, abs=0.2)
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


MEMORY = """
import numpy as np
from solvers import Budget, SubsetProblem, solve
from solvers.control import Control
from solvers.heuristics.portfolio import Portfolio

def peak(portfolio, problem):
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS")
    portfolio._search(problem, Control(), np.inf)
    return status("VmHWM") - before

def status(name):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(name))

def case(m, n):
    H = np.full((n, n), 0.1) + np.eye(n)
    return SubsetProblem(np.random.default_rng(0).standard_normal((m, n)), H, Budget.per_row(n - 32))

solve(case(64, 160), Portfolio(stages=1, patience=0))
for limit in (32 << 20, 1 << 30):
    print(peak(Portfolio(stages=2, patience=0, memory=limit), case(2048, 512)))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="reads Linux's peaks of memory")
def test_a_limit_on_memory_is_kept():
    command = [sys.executable, "-c", MEMORY]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    limited, ample = map(int, told)
    assert limited <= 32 << 20 < ample  # or else the limit would have limited nothing


@pytest.mark.parametrize("name", ["portfolio", "alps", "sparsegpt", "auto"])
def test_a_curvature_that_single_precision_makes_singular_is_searched_all_the_same(name, rng):
    X = rng.standard_normal((3, 264))
    problem = SubsetProblem(
        rng.standard_normal((2, 264)), X.T @ X + 1e-9 * np.eye(264), Budget.per_row(132)
    )  # fmt: skip
    found = solve(problem, name, time_limit=2.0)
    assert problem.pools.violation(found.mask) is None
    assert found.bound <= found.value
