"""Branch and bound on whole problems."""

import os

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, solve
from solvers import allocation as allocating
from solvers.control import Control
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.exact.tree.forest import block_gap
from solvers.instances import planted
from tests.solvers.oracles import BUDGETS, digits_rows, make_problem

GAP = 1e-6


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    """Compilation must not count against the time limits below."""
    for refit in (True, False):
        for budget in (Budget.per_row(3), Budget.per_layer(3)):
            solve(make_problem(np.random.default_rng(0), budget, refit=refit), "branch-and-bound")


@pytest.mark.parametrize("kind", ["shared", "stacked"])
@pytest.mark.parametrize(
    ("refit", "gradient"),
    [(True, False), (False, False), (False, True)],
    ids=["joint", "selection", "selection with gradient"],
)
@pytest.mark.parametrize("budget", BUDGETS)
def test_every_budget_to_a_small_gap(budget, refit, gradient, kind, rng):
    problem = make_problem(rng, BUDGETS[budget], n=9, refit=refit, gradient=gradient, kind=kind)
    best = solve(problem, "brute-force")
    found = solve(problem, "branch-and-bound", gap=GAP)
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(best.value, rel=GAP)
    assert found.bound <= best.value
    assert found.gap <= GAP


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", ["per_row", "n_of_m", "columns", "per_layer"])
def test_planted_optima_of_larger_problems(budget, refit):
    budgets = {**BUDGETS, "per_row": Budget.per_row(20), "columns": Budget.columns(20)}
    budgets["per_layer"] = Budget.per_layer(45)
    instance = planted(2, 36, budgets[budget], seed=3, refit=refit, margin=0.6)
    found = solve(instance.problem, "branch-and-bound")
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(instance.value, rel=1e-4)


def test_rows_of_a_real_layer_are_proven():
    problem = digits_rows(rows=4, inputs=28, prune=18)
    found = solve(problem, "branch-and-bound")
    assert found.status is Status.OPTIMAL
    assert found.stats["nodes"] > 4
    rows = found.rows
    assert rows.proven.all()
    assert rows.nodes.sum() == found.stats["nodes"]
    assert (rows.bound <= problem.row_values(found.mask) * (1 + 1e-12)).all()
    assert found.bound == pytest.approx(rows.bound.sum(), rel=1e-12)
    assert solve(problem, "local-search").value >= found.value * (1 - 1e-12)


def test_one_thread_and_two_give_the_same_answer(monkeypatch):
    problem = digits_rows(rows=5, inputs=24, prune=15)
    answers = []
    for count in (1, 2):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        answers.append(solve(problem, "branch-and-bound"))
    first, second = answers
    np.testing.assert_array_equal(first.mask, second.mask)
    assert (first.bound, first.stats["nodes"]) == (second.bound, second.stats["nodes"])


@pytest.mark.parametrize("budget", [Budget.per_row(24), Budget.per_layer(60)], ids=["per_row", "per_layer"])
def test_a_node_limit_keeps_mask_and_bound(budget, rng):
    problem = make_problem(rng, budget, m=3, n=40)
    found = solve(problem, BranchAndBound(node_limit=3), gap=0.0)
    assert found.status is Status.NODE_LIMIT
    assert 0 < found.bound < found.value
    assert problem.pools.violation(found.mask) is None


@pytest.mark.parametrize("budget", [Budget.per_row(48), Budget.per_layer(140)], ids=["per_row", "per_layer"])
def test_a_time_limit_keeps_mask_and_bound(budget, rng):
    problem = make_problem(rng, budget, m=3, n=72)
    found = solve(problem, "branch-and-bound", gap=0.0, time_limit=1.5)
    assert found.status is Status.TIME_LIMIT
    assert 0 < found.bound < found.value
    assert found.value <= solve(problem, "local-search").value * (1 + 1e-12)


def test_interruption_between_slices_keeps_mask_and_bound(rng):
    problem = make_problem(rng, Budget.per_row(48), m=2, n=72)
    found = solve(problem, "branch-and-bound", gap=0.0, callback=lambda step: step.nodes > 0)
    assert found.status is Status.INTERRUPTED
    assert 0 < found.bound < found.value


def test_progress_falls_and_rises_towards_the_answer(rng):
    problem = make_problem(rng, Budget.per_row(16), m=3, n=26)
    found = solve(problem, "branch-and-bound")
    lower = [step.bounds.lower for step in found.trace]
    upper = [step.bounds.upper for step in found.trace]
    assert lower == sorted(lower)
    assert (np.diff(upper) <= 1e-9 * problem.scale).all()
    assert (lower[-1], upper[-1]) == pytest.approx((found.bound, found.value), rel=1e-9)


@pytest.mark.parametrize("prune", [0, 6])
@pytest.mark.parametrize("make", [Budget.per_row, Budget.columns, lambda k: Budget.per_layer(2 * k)])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_budgets_without_a_choice(refit, make, prune, rng):
    problem = make_problem(rng, make(prune), refit=refit)
    found = solve(problem, "branch-and-bound")
    assert found.mask.all() == (prune == 6)
    assert found.value == pytest.approx(problem.value(np.full((2, 6), prune == 6)))
    assert found.bound == pytest.approx(found.value, abs=1e-9 * problem.scale)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_layer_of_zeros_costs_nothing(budget, refit, rng):
    base = make_problem(rng, BUDGETS[budget], refit=refit)
    problem = SubsetProblem(np.zeros((2, 6)), base.hessian, base.budget, refit=refit)
    found = solve(problem, "branch-and-bound")
    assert found.status is Status.OPTIMAL
    assert (found.value, found.bound, found.gap) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("kind", ["shared", "stacked"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("prune", [6, 18, 26])
def test_rows_of_different_scale_share_a_layers_budget(prune, refit, kind, rng):
    base = make_problem(rng, Budget.per_layer(prune), m=4, n=8, refit=refit, kind=kind)
    W = base.W * np.array([[0.1], [1.0], [3.0], [10.0]])
    problem = SubsetProblem(W, base.hessian, base.budget, refit=refit)
    best = solve(problem, "brute-force")
    found = solve(problem, "branch-and-bound", gap=GAP)
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(best.value, rel=GAP)
    np.testing.assert_array_equal(found.mask.sum(axis=1), best.mask.sum(axis=1))
    assert found.mask.sum(axis=1)[0] >= found.mask.sum(axis=1)[3]
    assert {"nodes", "rounds", "row_solves"} <= set(found.stats)


@pytest.mark.parametrize(
    ("refit", "gradient"),
    [(True, False), (False, False), (False, True)],
    ids=["joint", "selection", "selection with gradient"],
)
def test_a_layer_too_large_to_allocate_exactly_still_gets_valid_bounds(refit, gradient, rng, monkeypatch):
    problem = make_problem(rng, Budget.per_layer(9), m=3, n=7, refit=refit, gradient=gradient)
    best = solve(problem, "brute-force")
    monkeypatch.setattr(allocating, "EXACT_WORK", -1)
    found = solve(problem, "branch-and-bound")
    assert problem.pools.violation(found.mask) is None
    assert found.bound <= best.value <= found.value
    assert found.gap < 1.0 or gradient
    if found.status is Status.OPTIMAL:
        assert found.value == pytest.approx(best.value, rel=1e-4)


def test_counts_that_were_never_solved_are_not_taken_for_masks(monkeypatch):
    """Approximate allocation over row curves known at a few counts only may land between them."""
    problem = make_problem(
        np.random.default_rng(11), Budget.per_layer(16), m=4, n=8, refit=False, gradient=True
    )
    monkeypatch.setattr(allocating, "EXACT_WORK", -1)
    found = solve(problem, "branch-and-bound")
    assert found.bound <= solve(problem, "brute-force").value <= found.value


@pytest.mark.parametrize("budget", [Budget.per_layer(60), Budget.per_row(20)], ids=["per_layer", "per_row"])
def test_a_warm_start_is_where_the_search_begins(budget, rng):
    problem = make_problem(rng, budget, m=3, n=40)
    best = solve(problem, "branch-and-bound", time_limit=0.5)
    warmed = solve(problem, BranchAndBound(node_limit=1), warm_start=best.mask)
    assert warmed.trace[0].bounds.upper <= best.value * (1 + 1e-9)
    assert warmed.value <= best.value


@pytest.mark.parametrize(
    ("values", "offset"), [([3.0, 1.0], 0.0), ([3.0, -1.0], 0.0), ([3.0, 1.0], -3.5), ([0.0, 0.0], 1.0)]
)
def test_gaps_of_blocks_add_up_to_the_gap_asked_for(values, offset):
    control = Control(gap=0.01, offset=offset)
    each = block_gap(control, values)
    assert each * np.abs(values).sum() <= 0.01 * abs(sum(values) + offset) + 1e-15
    assert each > 0


def test_open_searches_that_prove_keep_the_bounds_of_their_rows():
    problem = make_problem(np.random.default_rng(0), Budget.per_row(20), m=2, n=40)
    solution = solve(problem, BranchAndBound(node_limit=3), gap=0.0, certify=True)
    assert solution.rows is not None
    assert np.all(solution.rows.bound <= problem.row_values(solution.mask))
    assert solution.certificate is not None
