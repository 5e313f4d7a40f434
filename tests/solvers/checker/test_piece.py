"""Pieces and the points of bounds: every number within its error, in rational arithmetic."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from solvers import Budget
from solvers.certificate.original import stored
from solvers.checker.leaves import bounds, curve, points
from solvers.checker.piece import make_piece
from solvers.checker.reduced import reduce_problem
from solvers.checker.values import budget_violation, row_values
from tests.solvers.exactly import exact_hessian, exact_row_values
from tests.solvers.oracles import BUDGETS, all_masks, fractions, make_problem
from tests.solvers.oracles import _solve_exactly as solve_exactly

CASES = list(
    itertools.product((True, False), ("shared", "stacked", "factor"), (False, True), ((), (2,), (0, 3)))
)
half = Fraction(1, 2)


def within(mid, error, exact):
    return bool((np.abs(fractions(mid) - exact) <= fractions(error)).all())


def eliminated(problem, row):
    """A row's curvature, gradient and offset without its movable columns."""
    H, b, p = exact_hessian(problem, row), problem.movable, problem.prunable
    g = fractions(np.zeros(problem.n) if problem.G is None else problem.G[row])
    if not len(b):
        return H, g, Fraction(0)
    corner, cross = H[np.ix_(b, b)], H[np.ix_(b, p)]
    X = np.stack([solve_exactly(corner, column) for column in cross.T], axis=1)
    y = solve_exactly(corner, g[b])
    return H[np.ix_(p, p)] - cross.T @ X, g[p] - cross.T @ y, -half * (g[b] @ y)


@pytest.mark.parametrize(("refit", "kind", "gradient", "movable"), CASES)
def test_reduced_numbers_lie_within_their_errors(refit, kind, gradient, movable):
    rng = np.random.default_rng(0)
    problem = make_problem(rng, Budget.per_row(2), refit=refit, kind=kind, gradient=gradient, movable=movable)
    reduced = reduce_problem(stored(problem))
    for r in range(problem.m):
        H, g, offset = eliminated(problem, r)
        i = r if len(reduced.H) > 1 else 0
        assert within(reduced.H[i], reduced.H_error[i], H)
        assert within(reduced.G[r], reduced.G_error[r], g)
        assert within(reduced.offset[r], reduced.offset_error[r], offset)
        assert (reduced.H_error[i] <= 1e-14 * np.abs(reduced.H).max()).all()


def piece_of(problem, row=0):
    this = stored(problem)
    coupled = problem.budget.kind == "columns"
    rows = np.arange(problem.m) if coupled else np.array([row])
    return make_piece(this, reduce_problem(this), rows, this.pools()[1][0 if coupled else row])


def unassuming(piece, d, u):
    zeros = np.zeros(len(u), np.int64)
    return points(piece, d[None], np.zeros((1, piece.n), np.int64), zeros, u)


def exact_bound(problem, piece, d, u, fixings):
    """The docs' formula in rational arithmetic."""
    d, u = fractions(d), fractions(u)
    score, total = np.full(piece.n, Fraction(0)), Fraction(0)
    parts = [eliminated(problem, r) for r in piece.rows]
    weights = fractions(problem.W[:, problem.prunable])
    if problem.refit:
        for i, (r, (H, g, offset)) in enumerate(zip(piece.rows, parts, strict=True)):
            at = (i, 0) if len(piece.H) > 1 else (0, i)
            w, v, R = weights[r], u[at[0], :, at[1]], H - np.diag(d[at[0]])
            score += (H @ w - g - R @ v) ** 2 / (2 * d[at[0]])
            total += half * (w @ H @ w) - g @ w + offset - half * (v @ R @ v)
    else:
        A = sum(np.outer(weights[r], weights[r]) * H for r, (H, _, _) in zip(piece.rows, parts, strict=True))
        c = sum(weights[r] * g for r, (_, g, _) in zip(piece.rows, parts, strict=True))
        R, v = A - np.diag(d[0]), u[0, :, 0]
        score = R @ v + half * d[0] - c
        total = sum(offset for _, _, offset in parts) - half * (v @ R @ v)
    size = piece.n // len(piece.prune)
    for p in range(len(piece.prune)):
        pool = range(p * size, (p + 1) * size)
        wanted, mark = (piece.keep[p], 1) if problem.refit else (piece.prune[p], -1)
        chosen = [score[i] for i in pool if fixings[i] == mark]
        free = sorted((score[i] for i in pool if fixings[i] == 0), reverse=problem.refit)
        left = wanted - len(chosen)
        if not 0 <= left <= len(free):
            return np.inf
        total += (-1 if problem.refit else 1) * sum(chosen + free[:left], Fraction(0))
    return max(total, Fraction(0)) if problem.G is None else total


@pytest.mark.parametrize("budget", sorted(BUDGETS.keys() - {"per_layer"}))
@pytest.mark.parametrize(("refit", "kind", "gradient", "movable"), CASES[::3])
def test_bounds_are_just_below_the_exact_ones(budget, refit, kind, gradient, movable):
    rng = np.random.default_rng(1)
    n = 6 + len(movable)
    problem = make_problem(
        rng, BUDGETS[budget], n=n, refit=refit, kind=kind, gradient=gradient, movable=movable
    )
    piece = piece_of(problem)
    shape = (4, len(piece.H), piece.n, piece.b.shape[2])
    u = (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 3, shape)).astype(np.float32)
    d = rng.uniform(0.01, 1.0, (len(piece.H), piece.n))
    if not refit:
        d *= rng.choice([-1, 1], d.shape)
    base, score = unassuming(piece, d, u)
    at = rng.integers(0, 4, 30)
    fixings = rng.choice([-1, 0, 0, 0, 1], (30, piece.n)).astype(np.int8)
    low = bounds(piece, base[at], score[at], fixings)
    for i in range(30):
        exact = exact_bound(problem, piece, d, u[at[i]], fixings[i])
        assert low[i] <= exact
        if exact == np.inf:
            assert low[i] == np.inf
        else:
            size = np.abs(base[at[i]]) + np.abs(score[at[i]]).sum() + abs(piece.constant)
            assert low[i] >= float(exact) - 1e-13 * size


@pytest.mark.parametrize("refit", [True, False])
def test_one_point_bounds_every_count(refit):
    rng = np.random.default_rng(2)
    problem = make_problem(rng, Budget.per_row(2), m=1, n=6, refit=refit)
    piece = piece_of(problem)
    d, u = rng.uniform(0.01, 0.5, (1, 6)), rng.standard_normal((1, 1, 6, 1))
    base, score = unassuming(piece, d, u)
    low = curve(piece, float(base[0]), score[0])
    assert low.shape == (7,)
    for k in range(7):
        other = make_problem(np.random.default_rng(2), Budget.per_row(k), m=1, n=6, refit=refit)
        exact = exact_bound(other, piece_of(other), d, u[0], np.zeros(6))
        assert low[k] <= exact
        assert low[k] >= float(exact) - 1e-12 * abs(float(exact)) - 1e-13


@pytest.mark.parametrize(("refit", "kind", "gradient", "movable"), CASES)
def test_values_are_enclosed(refit, kind, gradient, movable):
    rng = np.random.default_rng(3)
    problem = make_problem(rng, Budget.per_row(2), refit=refit, kind=kind, gradient=gradient, movable=movable)
    this = stored(problem)
    reduced = reduce_problem(this)
    d = np.full((problem.m, this.n), 0.9 * np.linalg.eigvalsh(reduced.H[0])[0] if refit else 1.0)
    if kind == "stacked" and refit:
        d = np.stack([np.full(this.n, 0.9 * np.linalg.eigvalsh(H)[0]) for H in reduced.H])
    for mask in itertools.islice(all_masks(problem), 0, None, 37):
        low, high, size = row_values(this, reduced, mask, d)
        exact = exact_row_values(problem, mask)
        assert all(a <= x <= b for a, x, b in zip(low.tolist(), exact, high.tolist(), strict=True))
        assert (high - low <= 1e-12 * (size + 1.0)).all()


def test_budget_violations_are_named():
    rng = np.random.default_rng(4)
    none = np.zeros((2, 6), dtype=bool)
    for name, words in {
        "per_row": "prunes 0 in pool 0 of row 0, not 3",
        "row_counts": "prunes 0 in pool 0 of row 0, not 1",
        "per_layer": "prunes 0 weights, not 5",
        "n_of_m": "prunes 0 in pool 0 of row 0, not 2",
        "columns": "prunes 0 in pool 0 of row 0, not 3",
    }.items():
        problem = make_problem(rng, BUDGETS[name])
        assert budget_violation(stored(problem), none) == words
        assert budget_violation(stored(problem), next(all_masks(problem))) is None
    assert budget_violation(stored(make_problem(rng, BUDGETS["per_layer"])), none, counted=False) is None
    uneven = np.zeros((2, 6), dtype=bool)
    uneven[0, :3] = uneven[1, 3:] = True
    assert "rows that differ" in str(budget_violation(stored(make_problem(rng, BUDGETS["columns"])), uneven))
    problem = make_problem(rng, BUDGETS["per_row"], movable=(1,))
    assert "movable" in str(budget_violation(stored(problem), uneven))


def test_splits_are_judged():
    rng, free = np.random.default_rng(5), np.zeros(6, np.int64)
    for refit in (True, False):
        piece = piece_of(make_problem(rng, Budget.per_row(2), refit=refit))
        low = np.linalg.eigvalsh(piece.H[0])[0]
        assert piece.check_split(np.full((1, 6), 0.99 * low), free) is None
        assert "positive semidefinite" in piece.check_split(np.full((1, 6), 1.01 * low), free)
        assert "not finite" in piece.check_split(np.full((1, 6), np.nan), free) or refit
        assert (piece.check_split(np.full((1, 6), -low), free) is None) is not refit


@pytest.mark.parametrize("refit", [True, False])
def test_a_split_counts_only_where_it_assumes_nothing_else(refit):
    piece = piece_of(make_problem(np.random.default_rng(6), Budget.per_row(2), refit=refit))
    H = piece.H[0]
    root = np.array([1, -1, 0, 0, 0, 0])
    alive = root >= 0 if refit else root == 0
    d = np.full((1, 6), np.nan)
    d[:, alive] = 0.99 * np.linalg.eigvalsh(H[np.ix_(alive, alive)])[0]
    assert piece.check_split(d, root) is None
    assert piece.check_split(d * 1.03, root) is not None
    assert "finite" in piece.check_split(d, 0 * root) or refit
    assert piece.check_split(d, 0 * root) is not None
    assert "assumes a fixing that is none" in piece.check_split(d, 2 * root)
    assert piece.check_split(np.full((1, 6), np.nan), -np.ones(6, np.int64)) is None


@pytest.mark.parametrize("refit", [True, False])
def test_bounds_under_assumptions_hold_for_all_masks_that_meet_them(refit):
    rng = np.random.default_rng(7)
    for gradient in (True, False):
        problem = make_problem(rng, Budget.per_row(3), m=1, n=6, refit=refit, gradient=gradient)
        piece = piece_of(problem)
        for _ in range(6):
            root = rng.permutation([1, -1, 0, 0, 0, 0])
            alive = root >= 0 if refit else root == 0
            low = np.linalg.eigvalsh(piece.H[0][np.ix_(alive, alive)])[0]
            d, u = rng.uniform(0.1, 0.95, (1, 1, 6)) * low, rng.standard_normal((3, 1, 6, 1))
            d[:, :, root > 0] *= 1e-7
            assert piece.check_split(d[0], root) is None
            base, score = points(piece, d, root[None], np.zeros(3, np.int64), u)
            bound = bounds(piece, base, score, np.repeat(root[None], 3, axis=0).astype(np.int8))
            best = min(
                exact_row_values(problem, mask)[0]
                for mask in all_masks(problem)
                if (mask[0][root < 0]).all() and not mask[0][root > 0].any()
            )
            assert all(b <= best for b in bound.tolist())
            shifted = u + np.where(root == 0, 0.0, 5.0)[:, None]
            assert (points(piece, d, root[None], np.zeros(3, np.int64), shifted)[0] == base).all()


@pytest.mark.parametrize("refit", [True, False])
def test_scores_that_cancel_stay_on_their_side(refit):
    """At the point where all scores vanish, what floating point shows of them is rounding."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        problem = make_problem(rng, Budget.per_row(3), m=1, n=6, refit=refit, gradient=True)
        piece = piece_of(problem)
        d = np.full((1, 6), 1e-14)
        R = piece.H[0] - np.diag(d[0])
        target = piece.b[0, :, 0] if refit else piece.b[0, :, 0] - 0.5 * d[0]
        u = np.linalg.solve(R, target)[None, None, :, None]
        _, score = unassuming(piece, d, u)
        H, g, _ = eliminated(problem, 0)
        w, v, e = fractions(problem.W[0]), fractions(u[0, 0, :, 0]), fractions(d[0])
        if refit:
            exact = (H @ w - g - H @ v + e * v) ** 2 / (2 * e)
            assert (fractions(score[0]) >= exact).all()
        else:
            exact = np.outer(w, w) * H @ v - e * v + e / 2 - w * g
            assert (fractions(score[0]) <= exact).all()


@pytest.mark.parametrize("budget", ["per_row", "columns"])
@pytest.mark.parametrize(("refit", "kind", "gradient", "movable"), CASES[::2])
def test_pieces_lie_within_their_errors(budget, refit, kind, gradient, movable):
    rng = np.random.default_rng(8)
    problem = make_problem(
        rng, BUDGETS[budget], n=7, refit=refit, kind=kind, gradient=gradient, movable=movable[:1]
    )
    piece = piece_of(problem)
    parts = [eliminated(problem, r) for r in piece.rows]
    weights = fractions(problem.W[:, problem.prunable])
    offset = sum(part[2] for part in parts)
    if refit:
        total = offset
        for i, (r, (H, g, _)) in enumerate(zip(piece.rows, parts, strict=True)):
            at = (i, 0) if len(piece.H) > 1 else (0, i)
            assert within(piece.H[at[0]], piece.H_error[at[0]], H)
            assert within(piece.b[at[0], :, at[1]], piece.b_error[at[0], :, at[1]], H @ weights[r] - g)
            total += half * (weights[r] @ H @ weights[r]) - g @ weights[r]
        assert piece.constant <= total
        assert piece.constant == pytest.approx(float(total), rel=1e-12)
    else:
        A = sum(np.outer(weights[r], weights[r]) * H for r, (H, _, _) in zip(piece.rows, parts, strict=True))
        c = sum(weights[r] * g for r, (_, g, _) in zip(piece.rows, parts, strict=True))
        assert within(piece.H[0], piece.H_error[0], A)
        assert within(piece.b[0, :, 0], piece.b_error[0, :, 0], c)
        assert piece.constant <= offset


def test_a_value_is_enclosed_by_any_move(monkeypatch):
    """Without a refit the upper end is poor, and the lower one makes up for it by the residual."""
    monkeypatch.setattr("solvers.checker.values._correct", lambda *_: None)
    problem = make_problem(np.random.default_rng(9), Budget.per_row(3))
    this = stored(problem)
    d = np.full((2, 6), 0.9 * np.linalg.eigvalsh(problem.hessian.dense(0))[0])
    for mask in itertools.islice(all_masks(problem), 0, None, 37):
        low, high, _ = row_values(this, reduce_problem(this), mask, d)
        exact = exact_row_values(problem, mask)
        assert all(a <= x <= b for a, x, b in zip(low.tolist(), exact, high.tolist(), strict=True))
        assert (low < 0.999 * high).all()
