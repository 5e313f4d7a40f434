"""Rows whose curvature is flat along a dense direction, against brute force."""

import numpy as np
import pytest

from solvers import Budget, SubsetProblem, solve
from solvers.bounds.shared import lifted, relaxation
from solvers.bounds.shared.lifted import cells_in_blocks, common_blocks, cover, lift
from solvers.bounds.shared.rows import SharedRows
from solvers.relaxations.split import Relaxation
from tests.solvers.oracles import all_masks, gram


def flat(rng, n, budget, *, m=2, low=1e-3):
    """A problem whose curvature is next to nothing along a dense direction."""
    a = rng.choice([-1.0, 1.0], n) * rng.uniform(0.7, 1.3, n)
    a /= np.linalg.norm(a)
    P = np.eye(n) - np.outer(a, a)
    H = P @ (np.eye(n) + 0.3 * gram(rng, n)) @ P + low * np.outer(a, a)
    return SubsetProblem(rng.standard_normal((m, n)), 0.5 * (H + H.T), budget)


def masks_of_all_rows(problem):
    """Every mask of a row, given to all rows."""
    lone = SubsetProblem(problem.W[:1], problem.hessian, problem.budget)
    return [np.repeat(mask, problem.m, axis=0) for mask in all_masks(lone)]


def optima(problem):
    """`[m]` least cost of every row."""
    return np.min([problem.row_values(mask) for mask in masks_of_all_rows(problem)], axis=0)


def plain(problem):
    rows = SharedRows.of(problem)
    split = relaxation.choose(rows)
    return rows, split, relaxation.bounds(rows, split, relaxation.relax(rows, split)[0])


@pytest.mark.parametrize("low", [1e-4, 1e-2, 0.1])
@pytest.mark.parametrize("budget", [Budget.per_row(4), Budget.n_of_m(2, 4)], ids=["one pool", "pools"])
def test_bounds_are_below_the_optimum_and_far_above_the_plain_ones(budget, low, rng):
    problem = flat(rng, 8, budget, low=low)
    rows, split, known = plain(problem)
    best = optima(problem)
    for values in (best, 1.5 * best):
        found = cover(lift(rows, split), known, values).bounds(known, values)
        assert (known <= found).all()
        assert (found <= best).all()
        if low < 0.1:
            assert found.sum() > 1.5 * known.sum()


def test_masks_that_use_the_direction_are_covered(rng):
    """Weights along it can go for next to nothing: cells far from zero hold the best masks."""
    problem = flat(rng, 8, Budget.per_row(6), low=1e-4)
    values, vectors = np.linalg.eigh(problem.hessian.dense(0))
    W = 30.0 * vectors[:, 0] + 0.1 * problem.W
    along = SubsetProblem(W, problem.hessian, problem.budget)
    rows, split, known = plain(along)
    best = optima(along)
    found = cover(lift(rows, split), known, 1.2 * best).bounds(known, 1.2 * best)
    assert (found <= best).all()
    moved = np.abs((along.weights(solve(along, "brute-force").mask) - W) @ vectors[:, 0])
    assert (moved > 0.1 * np.sqrt(2 * best / values[0])).all()


def test_cells_hold_for_masks_inside_them(rng):
    problem = flat(rng, 8, Budget.per_row(4))
    rows, split, _ = plain(problem)
    direction = lift(rows, split)
    masks = masks_of_all_rows(problem)
    values = np.array([problem.row_values(mask) for mask in masks])
    s = np.array([(problem.weights(mask) - problem.W) @ direction.a.numpy() for mask in masks])
    most, row = values.max(axis=0), np.arange(2)
    checked = 0
    for low, high in rng.uniform(-3, 3, (30, 2)):
        ends = np.full(2, min(low, high)), np.full(2, max(low, high))
        bound = lifted._cells(direction, row, *ends, most, lambda: None)
        inside = (s >= ends[0]) & (s <= ends[1])
        assert (values >= bound)[inside].all()
        checked += inside.sum()
    assert checked > 50


def test_directions_of_few_inputs_are_left_alone(rng):
    H = np.diag([1e-4, *np.ones(7)]) + 1e-6 * gram(rng, 8)
    rows, split, _ = plain(SubsetProblem(rng.standard_normal((2, 8)), H, Budget.per_row(4)))
    assert lift(rows, split) is None


def test_lifts_that_do_not_pay_are_left(rng):
    rows, split, known = plain(flat(rng, 8, Budget.per_row(4)))
    assert cover(lift(rows, split), 1e3 * known + 1e3, 1e3 * known + 2e3) is None


def test_a_lift_that_is_stopped_leaves_what_is_known(rng):
    problem = flat(rng, 8, Budget.per_row(4))
    rows, split, known = plain(problem)
    best = optima(problem)
    assert cover(lift(rows, split, lambda: True), known, best, lambda: True) is None
    for polls in (5, 50, 100, 200):
        calls = iter([False] * polls + [True] * 10_000)
        cells = cover(lift(rows, split), known, best, lambda calls=calls: next(calls))
        late = known if cells is None else cells.bounds(known, best)
        assert ((known <= late) & (late <= best)).all()


@pytest.mark.parametrize("budget", [Budget.per_row(6), Budget.n_of_m(2, 4)], ids=["one pool", "pools"])
@pytest.mark.parametrize("low", [1e-3, pytest.param(0.1, marks=pytest.mark.slow)])
def test_blocks_raise_the_bounds_of_cells(budget, low):
    """Far above the diagonal split's, and never above the optimum, whatever the value at hand."""
    gained = 0.0
    for seed in range(2):
        problem = flat(np.random.default_rng(seed), 12, budget, m=1, low=low)
        rows, split, known = plain(problem)
        best = optima(problem)
        for values in (best, 1.5 * best):
            direction = lift(rows, split)
            cells = cover(direction, np.zeros(1), values)
            before = cells.bounds(known, values)[0]
            for size in (2, 4):
                found = cells_in_blocks(direction, 0, cells.of(0), float(values[0]), size=size)
                assert cells.bound.min() <= found
                assert min(found, values[0]) <= best[0]
                gained = max(gained, min(found, values[0]) / before)
    assert gained > 1.03


def test_blocks_that_are_stopped_leave_what_is_known(rng):
    problem = flat(rng, 12, Budget.per_row(6), m=1)
    rows, split, known = plain(problem)
    best = optima(problem)
    direction = lift(rows, split)
    cells = cover(direction, known, best)
    for polls in (0, 1, 3, 20):
        calls = iter([False] * polls + [True] * 10_000)
        found = cells_in_blocks(
            direction, 0, cells.of(0), best[0], size=4, stopped=lambda calls=calls: next(calls)
        )
        assert cells.bound.min() <= found
        assert min(found, best[0]) <= best[0]


def test_rows_without_room_for_blocks_keep_what_is_known(rng, monkeypatch):
    problem = flat(rng, 12, Budget.per_row(6), m=1)
    rows, split, known = plain(problem)
    best = optima(problem)
    direction = lift(rows, split)
    cells = cover(direction, known, best)

    def refuse(*args, **options):
        raise ValueError("hessian is too close to singular for a certified split; add damping")

    monkeypatch.setattr(lifted, "group_split", refuse)
    found = cells_in_blocks(direction, 0, cells.of(0), best[0], size=4)
    assert found == min(best[0], cells.bound.min())


def test_relaxation_raises_lifted_rows_in_time(rng):
    problem = flat(rng, 12, Budget.per_row(6), m=3)
    quick, slow = solve(problem, Relaxation(wide=9)), solve(problem, Relaxation(wide=9), time_limit=60.0)
    assert quick.bound < slow.bound <= optima(problem).sum()
    assert slow.stats["in_common_blocks_of_4"] > 0
    assert slow.stats["in_blocks_of_8"] > 0
    ungrouped = Relaxation(wide=9, grouped=9)
    own = solve(problem, ungrouped, time_limit=60.0)
    assert quick.bound < own.bound <= optima(problem).sum()
    enough = solve(problem, ungrouped, time_limit=60.0, gap=quick.gap + 1e-6)
    assert enough.bound == quick.bound


def test_relaxation_lifts(rng):
    problem = flat(rng, 10, Budget.per_row(5), m=3)
    found = solve(problem, Relaxation(wide=9))
    assert plain(problem)[2].sum() * 1.5 < found.bound <= optima(problem).sum()
    certified = solve(problem, Relaxation(wide=9), certify=True)
    assert certified.bound < found.bound
    assert certified.certificate.bound <= optima(problem).sum()


@pytest.mark.parametrize("limit", [None, 30.0], ids=["untimed", "timed"])
@pytest.mark.parametrize(
    "budget",
    [Budget.per_row(6), Budget.per_row(0), Budget.n_of_m(2, 4), Budget.per_layer(12)],
    ids=["half", "none", "pools", "layer"],
)
def test_rows_with_nothing_to_lose_are_closed(budget, limit, rng):
    """Weights that are sparse already: every cell is closed before it is halved."""
    problem = flat(rng, 12, budget)
    W = problem.W.copy()
    W[:, [0, 1, 4, 5, 8, 9]] = 0.0
    sparse = SubsetProblem(W, problem.hessian, budget)
    found = solve(sparse, Relaxation(wide=9), time_limit=limit)
    assert found.value == 0.0
    assert found.bound == 0.0


def test_the_flattest_direction_is_found(rng):
    problem = flat(rng, 12, Budget.per_row(4), low=0.05)
    direction = lift(*plain(problem)[:2])
    H = problem.hessian.dense(0)
    a = direction.a.numpy()
    assert a @ H @ a == pytest.approx(np.linalg.eigvalsh(H)[0], rel=1e-6)
    assert 0.9 * (a @ H @ a) < direction.lowest < np.linalg.eigvalsh(H)[0]
    np.testing.assert_allclose(direction.rows.H, H + direction.mu * np.outer(a, a), rtol=1e-12)


@pytest.mark.parametrize("budget", [Budget.per_row(6), Budget.n_of_m(3, 6)], ids=["one pool", "pools"])
def test_common_blocks_raise_the_bounds_of_cells_of_all_rows(budget, rng):
    problem = flat(rng, 12, budget, low=1e-2)
    rows, split, known = plain(problem)
    best = optima(problem)
    direction = lift(rows, split)
    cells = cover(direction, known, best)
    common = common_blocks(direction, cells, best, size=4)
    before, found = cells.bounds(known, best), []
    for row, value in enumerate(best.tolist()):
        found.append(cells_in_blocks(direction, row, cells.of(row), value, size=4, common=common))
    assert (before <= found).all()
    assert (found <= best).all()
    assert np.sum(best - found) < 0.95 * np.sum(best - before)


def test_groups_of_whole_pools_have_no_common_blocks(rng):
    problem = flat(rng, 8, Budget.n_of_m(2, 4))
    rows, split, known = plain(problem)
    best = optima(problem)
    direction = lift(rows, split)
    assert common_blocks(direction, cover(direction, known, best), best, size=4) is None
