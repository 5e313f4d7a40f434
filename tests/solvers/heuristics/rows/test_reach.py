"""Best swaps of wide selections against a look at every swap."""

import numpy as np
import pytest

from solvers import Budget, SubsetProblem, solve
from solvers.heuristics.local_search import LocalSearch
from solvers.heuristics.rows.reach import GROUP, correlations, open_reach
from solvers.heuristics.rows.search import limits_of, row_data, state
from solvers.heuristics.rows.swaps import best_swap, descend
from solvers.heuristics.tabu import Tabu

N = 300


def wide(rng, budget, *, m=1, n=N, gradient=True, shift=0.5, kind="shared"):
    """Rows whose inputs are rectified mixtures, so that most of them are correlated; some never active."""

    def curvature():
        X = np.maximum(rng.standard_normal((2 * n, n)) @ rng.standard_normal((n, n)) / np.sqrt(n) + shift, 0)
        X[:, :3] = 0.0
        return X.T @ X / len(X)

    H = curvature() if kind == "shared" else np.stack([curvature() for _ in range(m)])
    W = rng.standard_normal((m, n))
    W[:, 5:8] = 0.0
    G = 0.1 * rng.standard_normal((m, n)) if gradient else None
    return SubsetProblem(W, H, budget, refit=False, gradient=G)


def every_swap(problem, pruned):
    """`[n, n]` change when i comes back and j goes, infinite where that is no swap."""
    w, labels = problem.W[0], problem.pools.labels[0]
    A = w[:, None] * problem.hessian.dense(0) * w
    c = np.zeros(problem.n) if problem.G is None else problem.G[0] * w
    pull = A @ pruned - c
    half = 0.5 * np.diagonal(A)
    change = (half - pull)[:, None] + (half + pull)[None, :] - A
    return np.where(pruned[:, None] & ~pruned & (labels[:, None] == labels), change, np.inf)


BUDGETS = {
    "one pool": Budget.per_row(N // 2),
    "few left": Budget.per_row(N - 9),
    "few gone": Budget.per_row(5),
}


@pytest.mark.parametrize("shift", [0.0, 2.0])
@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_the_best_swap_is_that_of_all_swaps(budget, gradient, shift, rng):
    problem = wide(rng, budget, gradient=gradient, shift=shift)
    data = row_data(problem, 0)
    assert data.limits.shape == (3, N)
    local, _, _ = LocalSearch().improve(problem, problem.pools.smallest(rng.random((1, N))))
    for pruned in (problem.pools.smallest(rng.random((1, N)))[0], local[0]):
        changes = every_swap(problem, pruned)
        row = state(data, pruned.copy())
        barred = rng.random(N) < 0.2
        allowed = np.where(barred[:, None] | barred, np.inf, changes)
        middle = float(np.median(changes[np.isfinite(changes)]))
        for bars, aspiration, cutoff, expected in (
            (np.zeros(N, bool), -np.inf, np.inf, changes),
            (np.zeros(N, bool), -np.inf, middle, changes),
            (barred, -np.inf, np.inf, allowed),
            (barred, middle, np.inf, np.where(changes < middle, changes, allowed)),
            (np.ones(N, bool), middle, np.inf, changes),
        ):
            change, come, go = best_swap(row, bars, aspiration, cutoff)
            assert change == pytest.approx(expected.min(), rel=1e-9)
            assert expected[come, go] == pytest.approx(change, rel=1e-9)
        below = changes.min() - 1e-9 * abs(changes.min())
        assert best_swap(row, np.zeros(N, bool), -np.inf, below)[1:] == (-1, -1)
        assert best_swap(row, np.ones(N, bool), -np.inf)[1:] == (-1, -1)


def test_swaps_stay_in_their_pools(rng):
    problem = wide(rng, Budget.n_of_m(260, 280), n=560)
    pruned = problem.pools.smallest(rng.random((1, 560)))[0]
    changes = every_swap(problem, pruned)
    change, come, go = best_swap(state(row_data(problem, 0), pruned), np.zeros(560, bool), -np.inf)
    assert changes[come, go] == pytest.approx(changes.min(), rel=1e-9)
    assert come // 280 == go // 280
    assert change == pytest.approx(changes.min(), rel=1e-9)


def test_descents_are_those_of_full_scans(rng):
    problem = wide(rng, Budget.per_row(N // 2))
    data = row_data(problem, 0)
    start = problem.pools.smallest(rng.random((1, N)))[0]
    quick, full = start.copy(), start.copy()
    moves = descend(state(data, quick), 1e-9, 10_000)
    assert moves == descend(state(data._replace(limits=np.zeros((3, 0))), full), 1e-9, 10_000)
    assert moves > 20
    np.testing.assert_array_equal(quick, full)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_descents_of_rows_of_4096_are_those_of_full_scans(share):
    problem = wide(np.random.default_rng(0), Budget.per_row(round(share * 4096)), n=4096, gradient=False)
    data = row_data(problem, 0)
    start = solve(problem, "greedy").mask[0]
    quick, full = start.copy(), start.copy()
    moves = descend(state(data, quick), 1e-9, 10_000)
    assert moves == descend(state(data._replace(limits=np.zeros((3, 0))), full), 1e-9, 10_000)
    assert moves > 20
    np.testing.assert_array_equal(quick, full)


def test_groups_hold_every_entry_by_sign_and_size(rng):
    problem = wide(rng, Budget.per_row(N // 2))
    H, w = problem.hessian.dense(0), problem.W[0]
    limits = correlations(H)
    reach = open_reach(H, w, limits)
    assert sorted(reach.order.tolist()) == list(range(N))
    assert reach.edges[0] == 0
    assert reach.edges[-1] == N
    widths = np.diff(reach.edges)
    assert widths.min() >= 1
    assert widths.max() == GROUP
    minus = int(reach.edges[reach.negative[0]])
    assert (w[reach.order[:minus]] < 0).all()
    assert (w[reach.order[minus:]] >= 0).all()
    for part in (reach.size[:minus], reach.size[minus:]):
        assert (np.diff(part) >= 0).all()
    unit = H / np.outer(limits[0], limits[0])
    np.fill_diagonal(unit, 0.0)
    np.testing.assert_allclose(limits[1], unit.max(axis=0), rtol=1e-12)
    np.testing.assert_allclose(limits[2], -unit.min(axis=0), rtol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-200, 1e200])
def test_scales_at_the_ends_of_the_numbers(scale, rng):
    problem = wide(rng, Budget.per_row(N // 2), gradient=False)
    tiny = SubsetProblem(problem.W, scale * problem.hessian.dense(0), problem.budget, refit=False)
    limits = correlations(tiny.hessian.dense(0))
    assert np.isfinite(limits).all()
    if scale:
        np.testing.assert_array_equal(solve(tiny, "local-search").mask, solve(problem, "local-search").mask)


@pytest.mark.parametrize("kind", ["shared", "stacked"])
@pytest.mark.parametrize("budget", [Budget.per_row(150), Budget.per_layer(300), Budget.columns(150)])
def test_wide_selections_are_searched_with_it(budget, kind, rng):
    problem = wide(rng, budget, m=2, kind=kind)
    assert (limits_of(problem) is None) == (kind == "stacked" or problem.pools.coupled)
    greedy, local = solve(problem, "greedy"), solve(problem, "local-search")
    assert local.stats["moves"] > 0
    assert local.value < greedy.value
    assert solve(problem, Tabu(rounds=1)).value <= local.value + 1e-9 * abs(local.value)
    again = solve(problem, "local-search", warm_start=local.mask)
    np.testing.assert_array_equal(again.mask, local.mask)
