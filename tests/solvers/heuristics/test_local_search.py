"""Local search and greedy pruning, against every swap and every elimination."""

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, solve
from solvers.allocation import allocate
from solvers.greedy.curves import row_curves
from solvers.heuristics.greedy import greedy_mask
from solvers.heuristics.local_search import LocalSearch
from tests.solvers.oracles import BUDGETS, gram, make_problem

VARIANTS = pytest.mark.parametrize(
    ("refit", "gradient"),
    [(True, False), (False, False), (False, True)],
    ids=["joint", "selection", "selection with gradient"],
)
KINDS = pytest.mark.parametrize("kind", ["shared", "stacked"])


def cost(problem, mask):
    """The value of any mask, on the budget or not; of decisions, where rows are coupled."""
    mask = problem.pools.expand(mask, problem.m)
    budget = Budget.per_row(mask.sum(axis=1).tolist())
    return SubsetProblem(problem.W, problem.hessian, budget, refit=problem.refit, gradient=problem.G).value(
        mask
    )


def greedy_by_hand(problem):
    """The cheapest decision next, over all pools that still prune."""
    pools = problem.pools
    x = np.zeros(pools.labels.shape, dtype=bool)
    left = pools.prune.copy()
    while left.any():
        costs = {}
        for where in np.argwhere(~x & (left > 0)[pools.labels]):
            y = x.copy()
            y[tuple(where)] = True
            costs[tuple(where)] = cost(problem, y)
        best = min(costs, key=costs.get)
        x[best] = True
        left[pools.labels[best]] -= 1
    return pools.expand(x, problem.m)


def random_mask(problem, rng):
    return problem.pools.expand(problem.pools.smallest(rng.random(problem.pools.labels.shape)), problem.m)


def swaps(problem, mask):
    """The change of every swap within a pool, by recomputation: `{(restored, pruned): change}`."""
    pools = problem.pools
    x, labels = pools.decisions(mask), pools.labels
    changes = {}
    for i in np.argwhere(x):
        for j in np.argwhere(~x & (labels == labels[tuple(i)])):
            y = x.copy()
            y[tuple(i)], y[tuple(j)] = False, True
            changes[tuple(i.tolist()), tuple(j.tolist())] = cost(problem, y) - problem.value(mask)
    return changes


@VARIANTS
@KINDS
@pytest.mark.parametrize("budget", ["per_row", "row_counts", "n_of_m", "columns"])
def test_greedy_takes_the_cheapest_next(budget, kind, refit, gradient, rng):
    problem = make_problem(rng, BUDGETS[budget], refit=refit, kind=kind, gradient=gradient)
    np.testing.assert_array_equal(greedy_mask(problem), greedy_by_hand(problem))


@KINDS
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_greedy_shares_a_layers_budget_exactly_among_row_curves(refit, kind, rng):
    problem = make_problem(rng, Budget.per_layer(11), m=3, refit=refit, kind=kind)
    curves = row_curves(problem.W, problem.hessian, refit=refit)
    mask = greedy_mask(problem)
    expected = sum(c[k] for c, k in zip(curves.values, allocate(list(curves.values), 11), strict=True))
    assert problem.value(mask) == pytest.approx(expected, rel=1e-9)
    assert problem.value(mask) <= problem.value(greedy_by_hand(problem)) * (1 + 1e-12)


def test_greedy_with_a_gradient_takes_the_cheapest_of_the_layer(rng):
    problem = make_problem(rng, Budget.per_layer(7), refit=False, gradient=True)
    np.testing.assert_array_equal(greedy_mask(problem), greedy_by_hand(problem))


@pytest.mark.parametrize("seed", range(5))
def test_optimal_brain_surgeon_takes_the_least_saliency_of_the_layer(seed):
    problem = make_problem(np.random.default_rng(seed), Budget.per_layer(9), m=3, kind="stacked")
    np.testing.assert_array_equal(solve(problem, "obs").mask, greedy_by_hand(problem))


@pytest.mark.parametrize("budget", ["per_row", "n_of_m", "columns"])
def test_optimal_brain_surgeon_is_greedy_elsewhere(budget, rng):
    problem = make_problem(rng, BUDGETS[budget])
    np.testing.assert_array_equal(solve(problem, "obs").mask, solve(problem, "greedy").mask)


@VARIANTS
@KINDS
@pytest.mark.parametrize("budget", BUDGETS)
def test_no_swap_improves_what_local_search_returns(budget, kind, refit, gradient, rng):
    problem = make_problem(rng, BUDGETS[budget], refit=refit, kind=kind, gradient=gradient)
    start = random_mask(problem, rng)
    mask, moves, drift = LocalSearch().improve(problem, start)
    assert problem.pools.violation(mask) is None
    assert problem.value(mask) < problem.value(start)
    assert moves > 0
    assert drift < 1e-8
    tolerance = 1e-8 * abs(problem.value(mask)) + 1e-12
    assert min(swaps(problem, mask).values()) > -tolerance


def test_it_starts_from_greedy_or_from_the_warm_start(rng):
    problem = make_problem(rng, Budget.per_row(6), n=14)
    found = solve(problem, "local-search")
    assert found.trace[0].bounds.upper == pytest.approx(solve(problem, "greedy").value)
    assert found.value <= found.trace[0].bounds.upper
    again = solve(problem, "local-search", warm_start=found.mask)
    assert again.stats["moves"] == 0
    np.testing.assert_array_equal(again.mask, found.mask)


def test_local_search_improves_on_greedy():
    gains = []
    for seed in range(6):
        problem = make_problem(np.random.default_rng(seed), Budget.per_row(10), m=1, n=16)
        gains.append(1 - solve(problem, "local-search").value / solve(problem, "greedy").value)
    assert max(gains) > 0.01
    assert min(gains) >= -1e-12


def test_refreshing_keeps_the_costs_true(rng):
    n = 20
    problem = SubsetProblem(rng.standard_normal((3, n)), gram(rng, n, damping=1e-6), Budget.per_row(10))
    start = random_mask(problem, rng)
    often, moves, drift = LocalSearch(refresh_every=1).improve(problem, start)
    assert moves > 3
    assert 0 < drift < 1e-6
    assert min(swaps(problem, often).values()) > -1e-8 * problem.value(often)


def test_interruption_keeps_a_mask_of_the_budget(rng):
    problem = make_problem(rng, Budget.per_row(6), n=14)
    start = random_mask(problem, rng)
    mask, moves, _ = LocalSearch().improve(problem, start, stopped=lambda: Status.INTERRUPTED)
    assert moves == 0
    np.testing.assert_array_equal(mask, start)


@pytest.mark.parametrize(
    "budget", [Budget.per_row(0), Budget.per_row(6), Budget.columns(6), Budget.per_layer(0)]
)
def test_budgets_without_a_choice(budget, rng):
    problem = make_problem(rng, budget)
    found = solve(problem, "local-search")
    assert found.stats["moves"] == 0
    assert found.mask.all() or not found.mask.any()


def test_one_row_of_a_layer_has_nobody_to_exchange_with(rng):
    problem = make_problem(rng, Budget.per_layer(3), m=1)
    best = solve(problem, "brute-force").value
    assert best <= solve(problem, "local-search").value < np.inf
