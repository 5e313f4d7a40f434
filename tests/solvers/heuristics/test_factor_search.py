import itertools
import time

import numpy as np
import pytest

from solvers import BlockDiagonalHessian, Budget, DenseHessian, FactorHessian, Status, SubsetProblem, solve
from solvers.bounds.factor import image as factor_image
from solvers.bounds.factor.dual_ascent import ascend
from solvers.bounds.factor.image import coordinates, images
from solvers.hessian import factor
from solvers.heuristics import factor_rows, factor_search
from solvers.heuristics.factor_rows import JointRow, SelectionRow, disjoint, margins, near, shortlist
from solvers.heuristics.factor_search import FactorSearch
from solvers.heuristics.rows.search import Effort, state
from tests.solvers.bounds.factor.test_image import BUDGETS, make
from tests.solvers.oracles import optimum

VARIANTS = pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])


def row_of(problem, pruned):
    (image,) = images(problem)
    return (JointRow if problem.refit else SelectionRow)(image, pruned)


def value(problem, pruned):
    """The problem's value at any set, whatever the budget."""
    budget = Budget.per_layer(int(pruned.sum()))
    free = SubsetProblem(problem.W, problem.hessian, budget, refit=problem.refit, gradient=problem.G)
    return free.value(pruned[None])


@VARIANTS
def test_a_row_follows_the_value_through_flips(refit, rng, monkeypatch):
    monkeypatch.setattr(factor_rows, "FRESH", 4)
    problem = make(rng, refit=refit, n=12, gradient=not refit)
    row = row_of(problem, rng.random(12) < 0.5)
    for _ in range(6):
        before = row.pruned.copy()
        changed = np.sort(rng.choice(12, 3, replace=False))
        row.flip(changed)
        assert (np.flatnonzero(row.pruned != before) == changed).all()
        assert row.value == pytest.approx(value(problem, row.pruned), rel=1e-10)
        costs = row.costs()
        for i in range(12):
            other = row.pruned.copy()
            other[i] = ~other[i]
            assert costs[i] == pytest.approx(value(problem, other) - row.value, rel=1e-8, abs=1e-11)


@VARIANTS
def test_a_window_is_the_row_itself_but_for_a_constant(refit, rng):
    problem = make(rng, refit=refit, n=12, gradient=not refit)
    row = row_of(problem, rng.random(12) < 0.5)
    window = np.array([1, 4, 5, 8, 11])
    data = row.data(window)
    gaps = []
    for sides in itertools.product([False, True], repeat=5):
        whole = row.pruned.copy()
        whole[window] = sides
        gaps.append(value(problem, whole) - float(state(data, np.array(sides)).cost[0]))
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-10)


@VARIANTS
def test_an_exchange_finds_the_best_of_its_window(refit, rng):
    problem = make(rng, refit=refit, n=12, gradient=not refit)
    row = row_of(problem, np.arange(12) < 6)
    window = np.array([0, 2, 3, 6, 8, 9])
    best = np.inf
    for chosen in itertools.combinations(window, 3):
        whole = row.pruned.copy()
        whole[window] = np.isin(window, chosen)
        best = min(best, value(problem, whole))
    assert best < row.value
    row.exchange(window, [0, 0], Effort(), 20)
    assert row.value == pytest.approx(best, rel=1e-10)
    assert row.pruned.sum() == 6
    assert (np.flatnonzero(row.pruned != (np.arange(12) < 6)) <= 9).all()


def test_an_exchange_that_rounding_makes_worse_is_undone(rng, monkeypatch):
    problem = make(rng, refit=False, n=12)
    row = row_of(problem, np.arange(12) < 6)
    before, worth = row.pruned.copy(), row.value
    flip = row.flip

    def spoiled(changed):
        flip(changed)
        row.value = worth + 1.0

    monkeypatch.setattr(row, "flip", spoiled)
    row.exchange(np.arange(12), [0], Effort(), 2)
    assert (row.pruned == before).all()
    assert row.value == pytest.approx(worth, rel=1e-12)


def test_the_best_pair_leads_its_window(rng):
    problem = make(rng, refit=False, n=14, N=6)
    (image,) = images(problem)
    row = SelectionRow(image, rng.permutation(14) < 7)
    window = row.pairs(coordinates(image), np.zeros(14), 2)
    changes = {}
    for i, j in itertools.product(np.flatnonzero(row.pruned), np.flatnonzero(~row.pruned)):
        swapped = row.pruned.copy()
        swapped[[i, j]] = False, True
        changes[frozenset((int(i), int(j)))] = value(problem, swapped)
    assert frozenset(window.tolist()) == min(changes, key=changes.get)


def test_a_shortlist_has_the_cheapest_of_either_side():
    costs = np.array([5.0, 1.0, 2.0, 9.0, 0.5, 7.0])
    pruned = np.array([True, True, True, False, False, False])
    assert shortlist(costs, pruned, np.zeros(6, np.int64), 4).tolist() == [1, 2, 4, 5]
    assert shortlist(costs, pruned, np.zeros(6, np.int64), 99).tolist() == list(range(6))


def test_of_several_pools_a_shortlist_has_those_with_the_cheapest_swap():
    labels = np.repeat([0, 1, 2], 2)
    pruned = np.array([True, False] * 3)
    costs = np.array([3.0, 3.0, -5.0, 4.0, 1.0, 1.0])
    assert shortlist(costs, pruned, labels, 2).tolist() == [2, 3]
    assert shortlist(costs, pruned, labels, 5).tolist() == [2, 3, 4, 5]
    assert shortlist(costs, pruned, labels, 1).tolist() == [2, 3]


def test_pairs_that_share_an_entry_are_left_out():
    assert disjoint(np.array([7, 3, 7, 4]), np.array([1, 2, 5, 6]), 6).tolist() == [1, 2, 3, 4, 6, 7]
    assert disjoint(np.array([7, 3, 7, 4]), np.array([1, 2, 5, 6]), 4).tolist() == [1, 2, 3, 7]


def test_margins_are_distances_from_a_threshold_midway():
    scores = np.array([4.0, 1.0, 3.0, 10.0, 20.0])
    taken = np.array([True, False, True, False, False])
    found = margins(scores, taken, np.array([0, 0, 0, 1, 1]))
    assert found[:3].tolist() == [2.0, 1.0, 1.0]


def test_near_windows_prefer_small_margins(rng):
    margin, pruned = np.arange(400.0), np.arange(400) % 2 == 0
    found = np.concatenate([near(margin, pruned, np.zeros(400, np.int64), 20, rng) for _ in range(50)])
    assert np.mean(found) < 100
    assert len(np.unique(found)) > 40


@VARIANTS
@pytest.mark.parametrize("budget", BUDGETS)
def test_small_problems_are_solved_and_bounded(budget, refit, rng):
    problem = make(rng, refit=refit, budget=budget, gradient=not refit)
    best, found = optimum(problem), solve(problem, "factor-search")
    assert found.value == pytest.approx(best, rel=1e-9)
    assert np.isfinite(found.bound)
    assert found.bound <= best
    assert problem.pools.violation(found.mask) is None


@VARIANTS
@pytest.mark.parametrize("window", [16, 512])
def test_it_searches_better_than_it_rounds(refit, window):
    gained = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        problem = make(rng, refit=refit, n=60, N=20, damping=0.01)
        problem = SubsetProblem(problem.W, problem.hessian, Budget.per_layer(45), refit=refit)
        rounded = solve(problem, FactorSearch(opening=0, patience=0, window=2))
        found = solve(problem, FactorSearch(window=window))
        start = problem.value(problem.pools.smallest(problem.W**2 * problem.hessian.diagonal()))
        assert found.bound <= found.value <= start
        gained += found.value < rounded.value
        assert found.mask.tolist() == solve(problem, FactorSearch(window=window)).mask.tolist()
    assert gained


@VARIANTS
@pytest.mark.parametrize("solver", ["auto", "local-search", "relaxation", "factor-search"])
def test_wide_factors_are_never_formed(solver, refit, rng, monkeypatch):
    monkeypatch.setattr(factor, "WIDE", 3)
    monkeypatch.setattr(FactorHessian, "dense", lambda *_: pytest.fail("formed the dense matrix"))
    X = rng.standard_normal((5, 40)).astype(np.float32)
    problem = SubsetProblem(
        rng.standard_normal((2, 40)), FactorHessian(X, 0.1), Budget.per_row(30), refit=refit
    )
    found = solve(problem, solver)
    assert np.isfinite(found.bound)
    assert found.bound <= found.value
    assert len(found.rows.bound) == 2


def test_blocks_of_factors_are_searched(rng):
    parts = [FactorHessian(rng.standard_normal((3, 5)), 0.1) for _ in range(2)]
    problem = SubsetProblem(rng.standard_normal((1, 10)), BlockDiagonalHessian(parts), Budget.per_layer(6))
    assert solve(problem, "factor-search").value == pytest.approx(optimum(problem), rel=1e-9)


def test_rows_share_the_time_limit(rng, monkeypatch):
    X, W = rng.standard_normal((30, 200)), rng.standard_normal((3, 200))
    problem = SubsetProblem(W, FactorHessian(X, 0.01), Budget.per_row(150), refit=False)
    given = []
    monkeypatch.setattr(factor_search._RowSearch, "wander", lambda _, seconds: given.append(seconds))
    solve(problem, "factor-search", time_limit=60.0)
    solve(problem, "factor-search")
    shares = [share for share in given if share is not None]
    assert given[-3:] == [None] * 3
    assert all(0.0 < share <= 60.0 / rows for share, rows in zip(shares, (3, 2, 1), strict=True))
    assert shares[0] < shares[1] < shares[2]


def test_a_gap_that_is_met_ends_the_search(rng):
    problem = make(rng, refit=True, n=40)
    started = solve(problem, FactorSearch(), time_limit=30.0, gap=0.9)
    assert started.status is Status.OPTIMAL


@VARIANTS
def test_limits_and_interruptions_keep_a_mask_and_a_bound(refit, rng):
    problem = make(rng, refit=refit, n=40, budget="per_layer")
    stopped = solve(problem, "factor-search", callback=lambda progress: True)
    assert stopped.status is Status.INTERRUPTED
    limited = solve(problem, FactorSearch(), time_limit=0.3, gap=0.0)
    assert limited.status is Status.TIME_LIMIT
    for found in (stopped, limited):
        assert problem.pools.violation(found.mask) is None
        assert np.isfinite(found.bound)


@pytest.mark.parametrize(
    ("hessian", "budget", "message"),
    [
        (np.eye(4), Budget.per_row(1), "its curvature is no factor"),
        (BlockDiagonalHessian([DenseHessian(np.eye(4))]), Budget.per_row(1), "a block of its curvature is"),
        (FactorHessian(np.ones((9, 4)) + 9 * np.eye(9, 4)), Budget.per_row(1), "no damping"),
        (FactorHessian(np.ones((1, 4)), 1.0), Budget.columns(1), "2 rows share its columns"),
    ],
)
def test_what_it_refuses(hessian, budget, message):
    with pytest.raises(ValueError, match=message):
        solve(SubsetProblem(np.ones((2, 4)), hessian, budget), "factor-search")


@pytest.mark.parametrize("movable", [(), (1, 6)], ids=["none", "two"])
@VARIANTS
def test_rows_that_share_a_budget_are_searched_together(refit, movable, rng, monkeypatch):
    monkeypatch.setattr(factor, "WIDE", 2)
    n = 5 + len(movable)
    H = FactorHessian(rng.standard_normal((3, n)), 0.2)
    problem = SubsetProblem(
        rng.standard_normal((2, n)),
        H,
        Budget.per_layer(6),
        refit=refit,
        gradient=0.3 * rng.standard_normal((2, n)),
        movable=movable,
    )
    best, found = optimum(problem), solve(problem, "factor-search")
    assert found.value == pytest.approx(best, rel=1e-9)
    assert -np.inf < found.bound <= best + 1e-12


def test_large_joint_images_are_searched_in_a_sketch(rng, monkeypatch):
    """Every value told is the problem's own, and none is worse than the start."""
    monkeypatch.setattr(factor_image, "RANK", 6)
    monkeypatch.setattr(factor, "SKETCH", 5)
    monkeypatch.setattr(factor, "SPARE", 2)
    problem = make(rng, refit=True, n=60, N=20, damping=0.05)
    problem = SubsetProblem(problem.W, problem.hessian, Budget.per_layer(45))
    told = []
    found = solve(problem, "factor-search", callback=lambda p: told.append((p.bounds.upper, p.mask)) and None)
    start = problem.value(problem.pools.smallest(problem.W**2 * problem.hessian.diagonal()))
    assert found.value < 0.99 * start
    assert 0.0 < found.bound <= found.value
    for value, mask in told:
        assert value == pytest.approx(problem.value(mask), rel=1e-9)


def test_some_of_the_time_is_left_to_search(rng, monkeypatch):
    """A relaxation that takes all the time it gets ends before the limit."""

    def endless(image, space, value, *, tolerance, stopped):
        while not stopped():
            time.sleep(0.01)
        return ascend(image, space, value, stopped=stopped)

    monkeypatch.setattr(factor_search, "ascend", endless)
    monkeypatch.setattr(FactorSearch, "prepare", lambda self, like=None: None)
    found = solve(make(rng, refit=False, n=40), FactorSearch(opening=0), time_limit=1.0, gap=0.0)
    assert found.stats["windows"] > 0


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("prune", [0, 7])
def test_there_may_be_nothing_to_choose(refit, gradient, prune, rng):
    G = rng.standard_normal((2, 7)) if gradient else None
    H = FactorHessian(rng.standard_normal((20, 7)), 0.1)
    problem = SubsetProblem(rng.standard_normal((2, 7)), H, Budget.per_row(prune), refit=refit, gradient=G)
    solution = solve(problem, "factor-search", time_limit=1.0)
    assert solution.mask.all() == (prune == 7)
    assert solution.mask.any() == (prune == 7)
    assert solution.bound <= solution.value == problem.value(solution.mask)


@pytest.mark.parametrize("refit", [True, False])
def test_columns_that_only_move_are_refused_before_the_search(refit, rng):
    H = FactorHessian(rng.standard_normal((20, 5)), 0.1)
    problem = SubsetProblem(rng.standard_normal((1, 5)), H, Budget.per_row(2), refit=refit, movable=[4])
    with pytest.raises(ValueError, match="can't take this problem: with columns that only move"):
        solve(problem, "factor-search")
