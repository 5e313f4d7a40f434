import numpy as np
import pytest

from solvers import Budget, SubsetProblem, solve
from solvers.heuristics.local_search import LocalSearch
from solvers.heuristics.rows.stacked import Columns, stacked
from tests.solvers.oracles import make_problem

M, N, K = 3, 7, 3


@pytest.fixture
def problem(rng):
    return make_problem(rng, Budget.columns(K), m=M, n=N, kind="stacked")


def columns(*pruned):
    return np.isin(np.arange(N), pruned)


def value(problem, pruned):
    """What columns `[n]` cost, however many they are."""
    budget = Budget.columns(int(pruned.sum()))
    return SubsetProblem(problem.W, problem.hessian, budget).value(np.tile(pruned, (M, 1)))


def swaps(problem, pruned):
    """The value after every swap of two columns: `{(restored, pruned): value}`."""
    found = {}
    for i in np.flatnonzero(pruned):
        for j in np.flatnonzero(~pruned):
            other = pruned.copy()
            other[[i, j]] = False, True
            found[i, j] = value(problem, other)
    return found


def test_which_problems_are_stacked_columns(problem, rng):
    assert stacked(problem)
    assert not stacked(make_problem(rng, Budget.columns(K)))
    assert not stacked(make_problem(rng, Budget.per_row(K), kind="stacked"))
    assert not stacked(make_problem(rng, Budget.columns(K), kind="stacked", refit=False))


def test_the_best_swap_of_all_is_made_if_it_gains(problem):
    state = Columns(problem, columns(0, 3, 5))
    while True:
        before, now = state.pruned.copy(), state.cost
        changes = swaps(problem, before)
        assert now == pytest.approx(value(problem, before), rel=1e-9)
        if not state.swap(1e-9 * now):
            break
        i, j = min(changes, key=changes.get)
        assert np.flatnonzero(state.pruned != before).tolist() == sorted([i, j])
    assert min(changes.values()) >= now * (1 - 1e-8)


def test_every_row_has_the_same_columns_and_what_they_cost_it(problem):
    state = Columns(problem, columns(1, 2, 6))
    assert state.swap(0.0)
    mask = np.stack([row.pruned for row in state.rows])
    assert (mask == state.pruned).all()
    np.testing.assert_allclose([row.cost[0] for row in state.rows], problem.row_values(mask), rtol=1e-9)


def test_refreshing_drops_what_rounding_gathered(problem):
    state = Columns(problem, columns(1, 2, 6))
    assert state.swap(0.0)
    cost = state.cost
    state.rows[0].cost[0] *= 1.5
    state.refresh()
    assert state.cost == pytest.approx(cost, rel=1e-9)


@pytest.mark.parametrize("fresh", [1, 2, 100])
def test_the_cheapest_columns_go_in_turn(problem, monkeypatch, fresh):
    monkeypatch.setattr("solvers.heuristics.rows.stacked.FRESH", fresh)
    state = Columns(problem, columns())
    state.prune_cheapest(np.array([4]))
    expected = columns()
    for _ in range(4):
        costs = [np.inf if gone else value(problem, expected | columns(j)) for j, gone in enumerate(expected)]
        expected[np.argmin(costs)] = True
    np.testing.assert_array_equal(state.pruned, expected)
    assert state.cost == pytest.approx(value(problem, expected), rel=1e-9)


@pytest.mark.parametrize("prune", [0, N])
def test_there_is_nothing_to_swap_where_all_columns_stay_or_go(rng, prune):
    problem = make_problem(rng, Budget.columns(prune), m=M, n=N, kind="stacked")
    found = solve(problem, "local-search")
    assert found.stats["moves"] == 0
    assert found.mask.sum() == M * prune


def test_local_search_measures_how_far_costs_drift(problem):
    mask, moves, drift = LocalSearch(refresh_every=1).improve(problem, np.tile(columns(0, 3, 5), (M, 1)))
    assert moves > 0
    assert 0.0 < drift < 1e-10
    assert (mask == mask[0]).all()
