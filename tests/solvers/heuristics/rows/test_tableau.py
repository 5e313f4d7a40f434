"""Tableaux, swaps, walks, paths between masks, and elites."""

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.heuristics.rows.search import row_data, state
from solvers.heuristics.rows.swaps import best_swap, cheapest, descend, neighbour
from solvers.heuristics.rows.tableau import prune, refresh, restore
from solvers.heuristics.rows.walks import insert, relink, shake, tabu_walk
from tests.solvers.oracles import make_problem

CASES = pytest.mark.parametrize(
    ("refit", "gradient", "of"),
    [(True, False, 1), (False, False, 1), (False, True, 1), (True, False, 3), (False, True, 3)],
    ids=["joint", "selection", "gradient", "joint 3 of 5", "gradient 3 of 5"],
)


def make(rng, refit, gradient, of, n=10):
    """One row, a mask of its budget, and what any mask costs."""
    budget = Budget.per_row(4) if of == 1 else Budget.n_of_m(of, 5)
    problem = make_problem(rng, budget, m=1, n=n, refit=refit, gradient=gradient)
    mask = problem.pools.smallest(rng.random((1, n)))[0]

    def cost(pruned):
        free = make_problem(
            np.random.default_rng(0), Budget.per_row(int(pruned.sum())), m=1, n=n, refit=refit
        )
        free.W, free.hessian, free.G = problem.W, problem.hessian, problem.G
        return free.value(pruned[None])

    return problem, mask, cost


def swapped(mask, i, j):
    other = mask.copy()
    other[i], other[j] = False, True
    return other


def changes(problem, mask, cost):
    labels = problem.pools.labels[0]
    return {
        (i, j): cost(swapped(mask, i, j)) - cost(mask)
        for i in np.flatnonzero(mask).tolist()
        for j in np.flatnonzero(~mask & (labels == labels[i])).tolist()
    }


@CASES
def test_moves_lead_where_a_fresh_state_is(refit, gradient, of, rng):
    problem, mask, cost = make(rng, refit, gradient, of)
    row = state(row_data(problem, 0), mask.copy(), 10)
    for move in (3, 0, 7, 3, 9, 5, 0, 1, 2):
        (restore if row.pruned[move] else prune)(row, move)
        assert row.cost[0] == pytest.approx(cost(row.pruned), rel=1e-10)
    fresh = state(row_data(problem, 0), row.pruned.copy())
    s = row.size[0]
    assert s == fresh.size[0]
    np.testing.assert_allclose(row.y, fresh.y, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(row.kept[row.slot[fresh.kept[:s]]], fresh.kept[:s])
    if refit:
        order = row.slot[fresh.kept[:s]]
        np.testing.assert_allclose(row.E[order], fresh.E[:s], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(row.M[row.pruned], fresh.M[row.pruned], rtol=1e-9)


@CASES
def test_everything_and_nothing_pruned(refit, gradient, of, rng):
    problem, _, cost = make(rng, refit, gradient, of)
    everything = np.ones(10, dtype=bool)
    row = state(row_data(problem, 0), everything, 10)
    assert row.cost[0] == pytest.approx(cost(everything), rel=1e-10)
    assert best_swap(row, np.zeros(10, bool), -np.inf)[1:] == (-1, -1)
    for k in range(10):
        restore(row, k)
    assert row.cost[0] == pytest.approx(0.0, abs=1e-9 * cost(np.ones(10, dtype=bool)))
    refresh(row)
    assert row.cost[0] == 0.0
    assert best_swap(row, np.zeros(10, bool), -np.inf)[1:] == (-1, -1)


@CASES
@pytest.mark.parametrize("seed", range(3))
def test_best_swap_against_every_swap(refit, gradient, of, seed):
    rng = np.random.default_rng(seed)
    problem, mask, cost = make(rng, refit, gradient, of)
    row = state(row_data(problem, 0), mask.copy())
    every = changes(problem, mask, cost)
    barred = rng.random(10) < 0.3
    allowed = {key: value for key, value in every.items() if not barred[list(key)].any()}
    middle = sorted(every.values())[len(every) // 2]
    for bars, aspiration, expected in (
        (np.zeros(10, bool), -np.inf, every),
        (barred, -np.inf, allowed),
        (barred, middle, every if min(every.values()) < middle else allowed),
        (np.ones(10, bool), -np.inf, {}),
    ):
        change, come, go = best_swap(row, bars, aspiration)
        if not expected:
            assert (come, go) == (-1, -1)
            continue
        assert (come, go) == min(expected, key=expected.get)
        assert change == pytest.approx(expected[come, go], rel=1e-8, abs=1e-12)


@CASES
def test_descent_ends_where_no_swap_gains(refit, gradient, of, rng):
    problem, mask, cost = make(rng, refit, gradient, of)
    row = state(row_data(problem, 0), mask)
    before = row.cost[0]
    assert descend(row, 1e-9, 1) == 1
    assert row.cost[0] < before
    descend(row, 1e-9, 100)
    assert problem.pools.violation(mask[None]) is None
    assert row.cost[0] == pytest.approx(cost(mask), rel=1e-9)
    assert min(changes(problem, mask, cost).values()) > -1e-8 * abs(cost(mask))


@CASES
@pytest.mark.parametrize("towards", [1, -1])
def test_a_neighbour_has_one_more_or_less_and_no_swap_gains(towards, refit, gradient, of, rng):
    problem, mask, cost = make(rng, refit, gradient, of)
    single = [flipped(mask, k) for k in np.flatnonzero(mask == (towards < 0))]
    found = neighbour(row_data(problem, 0), mask.copy(), towards)
    assert found.sum() == mask.sum() + towards
    assert cost(found) <= min(cost(other) for other in single) * (1 + 1e-9)
    assert min(changes(problem, found, cost).values()) > -1e-8 * abs(cost(found))


@pytest.mark.parametrize("refit", [True, False])
def test_neighbours_of_everything_and_of_all_but_one(refit, rng):
    problem, _, cost = make(rng, refit, not refit, 1)
    for start, towards in ((np.ones(10, bool), -1), (np.arange(10) > 0, 1), (np.zeros(10, bool), 1)):
        found = neighbour(row_data(problem, 0), start.copy(), towards)
        assert found.sum() == start.sum() + towards
        assert cost(found) <= min(cost(flipped(start, k)) for k in np.flatnonzero(start == (towards < 0)))


@CASES
def test_relinking_ends_at_the_best_mask_between(refit, gradient, of, rng):
    problem, mask, cost = make(rng, refit, gradient, of)
    data = row_data(problem, 0)
    target = problem.pools.smallest(mask + rng.random((1, 10)))[0]
    between = state(data, mask.copy())
    seen = []
    while (differ := between.pruned != target).any():
        i, j = min(
            (key for key in changes(problem, between.pruned, cost) if differ[list(key)].all()),
            key=lambda key: cost(swapped(between.pruned, *key)),
        )
        restore(between, i)
        prune(between, j)
        seen.append(between.pruned.copy())
    row = state(data, mask.copy())
    relink(row, target)
    best = min(seen[:-1], key=cost, default=mask)
    np.testing.assert_array_equal(row.pruned, best)
    assert len(seen) > 1
    assert row.cost[0] == pytest.approx(cost(best), rel=1e-10)


@CASES
def test_a_walk_leaves_local_optima_and_keeps_the_best(refit, gradient, of, rng):
    problem, mask, cost = make(rng, refit, gradient, of)
    row = state(row_data(problem, 0), mask)
    descend(row, 1e-9, 100)
    local, best = mask.copy(), np.zeros(10, bool)
    assert tabu_walk(row, best, 1, np.random.default_rng(0))[0] == 1
    assert (row.pruned != local).sum() == 2
    np.testing.assert_array_equal(best, local)
    swaps, value = tabu_walk(row, best, 20, np.random.default_rng(0))
    assert swaps >= 20
    assert problem.pools.violation(best[None]) is None
    assert value == pytest.approx(cost(best), rel=1e-9)
    assert value <= row.cost[0] + 1e-9 * abs(value)


def columns(rng, m=3, n=10):
    """Joint columns: the problem, decisions of its budget, and what any decisions cost."""
    problem = make_problem(rng, Budget.columns(4), m=m, n=n)

    def cost(pruned):
        counts = Budget.columns(int(pruned.sum()))
        return SubsetProblem(problem.W, problem.hessian, counts).value(np.tile(pruned, (m, 1)))

    return problem, problem.pools.smallest(rng.random((1, n)))[0], cost


def test_columns_move_to_where_a_fresh_state_is(rng):
    problem, x, cost = columns(rng)
    row = state(row_data(problem, 0), x.copy(), 10)
    for move in (3, 0, 7, 3, 9, 5, 0, 1, 2):
        (restore if row.pruned[move] else prune)(row, move)
        assert row.cost[0] == pytest.approx(cost(row.pruned), rel=1e-10)
    fresh = state(row_data(problem, 0), row.pruned.copy())
    np.testing.assert_allclose(row.K, fresh.K, rtol=1e-8, atol=1e-10)
    y = np.array([state(data(w, problem), row.pruned.copy()).y for w in problem.W])
    np.testing.assert_allclose(fresh.K, y.T @ y, rtol=1e-8, atol=1e-10)


def data(w, problem):
    alone = SubsetProblem(w[None], problem.hessian, Budget.per_row(1))
    return row_data(alone, 0)


@pytest.mark.parametrize("seed", range(3))
def test_swaps_of_columns_against_every_swap(seed):
    rng = np.random.default_rng(seed)
    problem, x, cost = columns(rng)
    every = changes(problem, x, cost)
    barred = rng.random(10) < 0.3
    allowed = {key: value for key, value in every.items() if not barred[list(key)].any()}
    row = state(row_data(problem, 0), x.copy())
    for bars, aspiration, expected in (
        (np.zeros(10, bool), -np.inf, every),
        (barred, -np.inf, allowed),
        (np.ones(10, bool), max(every.values()), every),
    ):
        change, come, go = best_swap(row, bars, aspiration)
        assert (come, go) == min(expected, key=expected.get)
        assert change == pytest.approx(expected[come, go], rel=1e-8, abs=1e-12)
    descend(row, 1e-9, 100)
    assert row.cost[0] == pytest.approx(cost(row.pruned), rel=1e-9)
    assert min(changes(problem, row.pruned, cost).values()) > -1e-8 * cost(row.pruned)
    for towards, move in ((1, False), (-1, True)):
        single = {k: cost(flipped(row.pruned, k)) for k in np.flatnonzero(row.pruned == move).tolist()}
        assert cheapest(row, towards) == min(single, key=single.get)


def flipped(mask, k):
    other = mask.copy()
    other[k] = not other[k]
    return other


def test_a_walk_of_patience_zero_stays(rng):
    problem, mask, cost = make(rng, True, False, 1)
    best = np.zeros(10, bool)
    assert tabu_walk(state(row_data(problem, 0), mask.copy()), best, 0, rng) == (0, pytest.approx(cost(mask)))
    np.testing.assert_array_equal(best, mask)


@CASES
def test_shaken_masks_meet_the_budget_and_differ(refit, gradient, of, rng):
    problem, mask, cost = make(rng, refit, gradient, of)
    row = state(row_data(problem, 0), mask.copy())
    shaken = set()
    for _ in range(10):
        shake(row, 2, rng)
        assert problem.pools.violation(row.pruned[None]) is None
        assert row.cost[0] == pytest.approx(cost(row.pruned), rel=1e-8)
        shaken.add(row.pruned.tobytes())
    assert len(shaken) > 3


def test_elites_are_distinct_and_in_order():
    masks, values = np.zeros((3, 4), bool), np.full(3, np.inf)
    offers = [(0, 5.0), (1, 3.0), (0, 5.0), (2, 4.0), (3, 9.0), (1, 3.0), (3, 1.0)]
    for index, value in offers:
        mask = np.zeros(4, bool)
        mask[index] = True
        insert(masks, values, mask, value)
    assert values.tolist() == [1.0, 3.0, 4.0]
    assert masks.argmax(axis=1).tolist() == [3, 1, 2]
