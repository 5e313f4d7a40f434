import pytest

from solvers import Budget, Status, solve
from solvers.auto import Auto
from solvers.control import Control
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.solver import Outcome
from tests.solvers.heuristics.test_units import posed
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
    assert found.bound >= solve(problem, "relaxation").bound * (1 - 1e-12) - 1e-12
    assert found.trace[-1].bounds.lower <= found.bound


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
    assert found.bound <= 0.0


def test_no_limit_is_no_limit(rng, monkeypatch):
    problem = make_problem(rng, Budget.per_row(3))
    seen, run = [], BranchAndBound.run
    monkeypatch.setattr(
        BranchAndBound,
        "run",
        lambda self, *args: seen.append((args[1].deadline, args[1].remaining)) or run(self, *args),
    )
    control = Control()
    Auto().run(problem, control)
    assert seen == [(None, None)]
    assert control.deadline is None


def test_patience_holds_where_there_is_no_time_limit(rng, monkeypatch):
    problem = make_problem(rng, Budget.per_row(3))
    seen = []

    def run(solver, problem, control):
        seen.append(control.deadline)
        return Outcome(control.warm_start, reason=Status.TIME_LIMIT)

    monkeypatch.setattr(BranchAndBound, "run", run)
    start = solve(problem, "greedy").mask
    for limit, reason in ((None, Status.PATIENCE), (3.0, Status.TIME_LIMIT)):
        control = Control(warm_start=start)
        control.deadline = given = None if limit is None else control.started + limit
        assert Auto(patience=7.0).run(problem, control).reason is reason
        assert control.deadline == given
        expected = control.started + (7.0 if limit is None else limit)
        assert seen.pop() == pytest.approx(expected, abs=5.0)


def test_patience_that_is_used_up_leaves_the_best_mask_and_says_so(rng):
    problem = make_problem(rng, Budget.per_row(20), n=40)
    told = []
    found = solve(problem, Auto(patience=1e-3), gap=0.0, callback=told.append)
    assert found.status is Status.PATIENCE
    assert "patience" in found.status.remedy
    assert problem.pools.violation(found.mask) is None
    assert told


def test_a_part_of_a_search_is_interrupted_and_reports_as_the_whole():
    told = []
    whole = Control(callback=told.append)
    part = whole.within(1e9)
    part.report(2.0, 1.0)
    assert [step.bounds.lower for step in told] == [1.0]
    assert whole.trace
    assert part.stopped() is None
    whole.interrupted = True
    assert part.stopped() is Status.INTERRUPTED
    assert part.quiet().stopped() is Status.INTERRUPTED
    assert Control().within(0.0).stopped() is Status.TIME_LIMIT
    assert Control().within(0.0).quiet().stopped() is Status.TIME_LIMIT


def test_columns_in_units_are_proven_where_their_masks_are_few():
    few, many = posed(3, prune=4, seed=2, units=9), posed(2, prune=8, seed=2, units=16)
    found = solve(few)
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(solve(few, "brute-force").value)
    assert found.stats["ran"] == ["osscar", "local-search", "brute-force"]
    wide = solve(many)
    assert wide.stats["ran"] == ["osscar", "local-search", "relaxation"]
    assert 0 < wide.bound <= wide.value
    assert wide.value <= min(solve(many, name).value for name in ("osscar", "local-search")) + 1e-9


@pytest.mark.parametrize("budget", [Budget.per_row(5), Budget.n_of_m(1, 2)], ids=["rows", "pools"])
def test_wider_rows_are_searched_where_a_time_limit_leaves_room(rng, budget):
    problem = make_problem(rng, budget, m=2, n=10)
    auto = Auto(exact_inputs=5, search=BranchAndBound(grouped=8))
    assert solve(problem, auto, time_limit=600).stats["ran"] == ["branch-and-bound"]
    assert solve(problem, auto).stats["ran"] != ["branch-and-bound"]
    assert solve(problem, auto, time_limit=1e-6).stats["ran"] != ["branch-and-bound"]
    certified = solve(problem, auto, time_limit=600, certify=True).stats["ran"] == ["branch-and-bound"]
    assert certified == (budget.kind == "per_row")
    narrow = Auto(exact_inputs=5, timed_inputs=9, search=BranchAndBound(grouped=8))
    assert solve(problem, narrow, time_limit=600).stats["ran"] != ["branch-and-bound"]
    selection = make_problem(rng, Budget.per_row(5), m=2, n=10, refit=False)
    assert solve(selection, auto, time_limit=600).stats["ran"] != ["branch-and-bound"]
