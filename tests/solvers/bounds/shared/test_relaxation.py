"""Bounds of all rows at once, against brute force and lone rows."""

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from solvers import Budget, FactorHessian, SubsetProblem, solve
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.shared import relaxation
from solvers.bounds.shared import rows as shared_rows
from solvers.bounds.shared.relaxation import ascend, largest_split, shared_split, slope, start
from solvers.bounds.shared.rows import SharedRows, alike, shareable
from solvers.bounds.split import split_blocks
from solvers.form.blocks import blocks
from solvers.relaxations.split import Relaxation
from tests.solvers.oracles import _solve_exactly, fractions, gram, make_problem, optimum

BUDGETS = {
    "per_row": Budget.per_row(4),
    "row_counts": Budget.per_row([1, 5]),
    "per_layer": Budget.per_layer(7),
    "n_of_m": Budget.n_of_m(2, 4),
}
VARIANTS = {
    "joint": {"refit": True},
    "selection": {"refit": False},
    "selection with gradient": {"refit": False, "gradient": True},
}


def settled(problem):
    """Rows, split, points and indicators of a problem."""
    rows = SharedRows.of(problem)
    split = relaxation.choose(rows)
    return rows, split, *relaxation.relax(rows, split)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("budget", BUDGETS)
def test_bounds_are_below_the_optimum_and_near_it(budget, variant):
    closeness = []
    for seed in range(3):
        problem = make_problem(np.random.default_rng(seed), BUDGETS[budget], n=8, **VARIANTS[variant])
        found, best = solve(problem, Relaxation(wide=4)), optimum(problem)
        assert found.stats["split"] == "shared"
        assert found.bound <= best <= found.value + 1e-12 * problem.scale
        closeness.append((best - found.bound) / problem.scale)
        assert problem.pools.violation(found.mask) is None
    assert np.mean(closeness) < 0.08


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("budget", ["per_row", "row_counts", "n_of_m"])
def test_rows_bounds_are_those_of_lone_rows_at_the_same_split(budget, variant, rng):
    """The perspective (convexified) relaxation's value at that split, by the interior formula for a row."""
    problem = make_problem(rng, BUDGETS[budget], n=8, **VARIANTS[variant])
    rows, split, v, z = settled(problem)
    bounds = relaxation.bounds(rows, split, v)
    lifted = replace(rows, H=rows.H + split.shift * torch.eye(8))
    far = ascend(lifted, split.d + split.shift, split.inverse, start(rows), 2500, split.shift)
    exact = relaxation.bounds(rows, split, far.v)
    for r, block in enumerate(blocks(problem)):
        d = split.d.numpy() * (1.0 if problem.refit else problem.W[r] ** 2)
        u = v[r].numpy() / (1.0 if problem.refit else problem.W[r])
        assert bounds[r] == pytest.approx(
            lower_bound(block, d[None], u[None, :, None]), rel=1e-9, abs=1e-11 * block.scale
        )
        value = relaxed_value(block, d)
        assert bounds[r] == pytest.approx(value, rel=5e-3, abs=1e-4 * block.scale)
        assert exact[r] == pytest.approx(value, rel=1e-6, abs=1e-7 * block.scale)
        np.testing.assert_allclose(np.bincount(block.labels, weights=z[r]), block.keep, rtol=1e-4)


def relaxed_value(block, d):
    """Value of a row's relaxation at a split, by a general convex solver."""
    from tests.solvers.oracles import cp

    n, R = block.n, block.H[0] - np.diag(d)
    R = 0.5 * (R + R.T)
    lift = max(0.0, -np.linalg.eigvalsh(R)[0])
    z = cp.Variable(n)
    pools = [z >= 0, z <= 1]
    if block.refit:
        v = cp.Variable(n)
        pools += [cp.sum(z[block.labels == p]) == int(k) for p, k in enumerate(block.keep)]
        squares = sum(d[i] * cp.quad_over_lin(v[i], z[i]) for i in range(n))
        cost = 0.5 * cp.quad_form(v, cp.psd_wrap(R + lift * np.eye(n))) - block.B[0, :, 0] @ v + 0.5 * squares
        return block.constant + cp.Problem(cp.Minimize(cost), pools).solve(solver="CLARABEL")
    pools += [cp.sum(z[block.labels == p]) == int(k) for p, k in enumerate(block.prune)]
    cost = 0.5 * cp.quad_form(z, cp.psd_wrap(R + lift * np.eye(n))) + (0.5 * d - block.B[0, :, 0]) @ z
    return cp.Problem(cp.Minimize(cost), pools).solve(solver="CLARABEL")


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_a_layers_bound_is_that_of_its_best_counts(refit, rng):
    """The pool of a layer at given points: the least sum of the rows' curves there."""
    problem = make_problem(rng, Budget.per_layer(9), m=3, n=6, refit=refit)
    rows, split, v, _ = settled(problem)
    curves = shared_rows.curves_at(rows, split.d, v)
    counts = [c for c in itertools.product(range(7), repeat=3) if sum(c) == 9]
    least = min(sum(curves[r, k] for r, k in enumerate(c)) for c in counts)
    (bound,) = relaxation.bounds(rows, split, v)
    assert bound <= least + 1e-12 * problem.scale
    assert bound == pytest.approx(least, rel=1e-3 if refit else 1e-9)  # joint curves are not below zero


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_float_bounds_are_below_the_exact_ones(refit):
    """In rational arithmetic, at points that are far from the best ones too."""
    above = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        problem = make_problem(rng, Budget.per_row(3), m=2, n=6, refit=refit)
        rows, split, v, _ = settled(problem)
        d = split.d
        v += torch.tensor(1e-3 * rng.standard_normal((2, 6)))
        layer = shared_rows.layer_bound(replace(rows, size=12, keep=np.array([5])), d, v)
        found, scores, bases = shared_rows.row_bounds(rows, d, v), [], []
        for r in range(2):
            base, score = exact_parts(problem, r, d.numpy(), v[r].numpy())
            exact = base - sum(sorted(score)[-3:])
            assert Fraction(found[r]) <= (max(exact, 0) if refit else exact)
            assert found[r] >= float(exact) - 1e-11 * problem.scale
            above += found[r] < float(exact)
            scores, bases = scores + score, [*bases, base]
        exact = sum(bases) - sum(sorted(scores)[-(5 if refit else 7) :])
        assert Fraction(layer) <= (max(exact, 0) if refit else exact)
        assert layer >= float(exact) - 1e-11 * problem.scale
    assert above


def exact_parts(problem, r, d, v):
    H, w, d, v = (fractions(A) for A in (problem.hessian.dense(r), problem.W[r], d, v))
    Rv = H @ v - d * v
    if problem.refit:
        q = H @ w - Rv
        return (w @ H @ w - v @ Rv) / 2, list(q * q / (2 * d))
    return -(v @ Rv) / 2, list(-(w * Rv + d * w * w / 2))


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_the_slope_is_the_derivative_of_the_bounds(refit, rng):
    problem = make_problem(rng, Budget.per_row(5), m=3, n=10, refit=refit)
    rows = SharedRows.of(problem)
    inverse = torch.linalg.inv(rows.H)
    d = 0.5 * largest_split(rows.H, inverse)

    def relaxed(d):
        at = ascend(rows, d, inverse, start(rows), 3000)
        return at, shared_rows.row_bounds(rows, d, at.v).sum()

    g = slope(rows, d, relaxed(d)[0])
    for i in range(0, 10, 4):
        step = 1e-4 * d * (torch.arange(10) == i)
        difference = relaxed(d + step)[1] - relaxed(d - step)[1]
        assert difference / (2e-4 * float(d[i])) == pytest.approx(
            float(g[i]), rel=1e-3, abs=1e-4 * float(g.max())
        )


def test_shared_splits_are_worth_their_steps(rng):
    """More than the start, less than every row's own, and the own one where there is one row."""
    problem = make_problem(rng, Budget.per_row(10), m=6, n=20)
    rows = SharedRows.of(problem)
    inverse = torch.linalg.inv(rows.H)
    first = largest_split(rows.H, inverse)
    assert np.linalg.eigvalsh(problem.hessian.dense(0) - np.diag(first))[0] > 0
    last, at, _ = shared_split(rows, inverse, first)

    def total(d):
        return shared_rows.row_bounds(rows, d, ascend(rows, d, inverse, start(rows), 2000).v).sum()

    own = sum(
        lower_bound(b, s.d, relaxed_point(b, s.d, s.z))
        for b, s in zip(blocks(problem), split_blocks(blocks(problem)), strict=True)
    )
    assert 1.05 * total(first) < total(last) < own
    assert shared_rows.row_bounds(rows, last, at.v).sum() == pytest.approx(total(last), rel=2e-2)
    lone = rows.some(np.array([2]))
    block = blocks(problem)[2]
    best = split_blocks([block])[0]
    d, _, _ = shared_split(lone, inverse, first)
    found = shared_rows.row_bounds(lone, d, ascend(lone, d, inverse, start(lone), 2000).v)[0]
    assert found == pytest.approx(lower_bound(block, best.d, relaxed_point(block, best.d, best.z)), rel=2e-2)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_pools_that_keep_all_or_nothing_have_exact_bounds(refit, rng):
    problem = make_problem(rng, Budget.per_row([0, 6, 3]), m=3, n=6, refit=refit)
    rows, split, v, z = settled(problem)
    bounds = relaxation.bounds(rows, split, v)
    everything = problem.W[1] @ problem.hessian.dense(1) @ problem.W[1] / 2
    np.testing.assert_allclose(bounds[:2], [0.0, everything], atol=1e-12 * problem.scale)
    assert (z[0] == 1).all()
    assert (z[1] == 0).all()
    whole, none = (
        SubsetProblem(problem.W, problem.hessian, Budget.per_layer(k), refit=refit) for k in (18, 0)
    )
    assert relaxation.bounds(*settled(none)[:3])[0] == pytest.approx(0.0, abs=1e-12 * problem.scale)
    every = float(np.einsum("ri,ij,rj->", problem.W, problem.hessian.dense(0), problem.W)) / 2
    assert relaxation.bounds(*settled(whole)[:3])[0] == pytest.approx(every, rel=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_chunks_change_nothing_but_rounding(variant, rng, monkeypatch):
    problem = make_problem(rng, Budget.n_of_m(1, 4), m=5, n=8, **VARIANTS[variant])
    rows, split, v, _ = settled(problem)
    whole = relaxation.bounds(rows, split, v)
    monkeypatch.setattr(relaxation, "CHUNK_BYTES", 4 * 8 * 2)
    monkeypatch.setattr(shared_rows, "CHUNK_BYTES", 8 * 8 * 2)
    chunked = relaxation.bounds(rows, split, relaxation.relax(rows, split)[0])
    np.testing.assert_allclose(chunked, whole, rtol=1e-3, atol=1e-5 * problem.scale)
    (layer,) = relaxation.bounds(
        *settled(SubsetProblem(problem.W, problem.hessian, Budget.per_layer(20)))[:3]
    )
    monkeypatch.undo()
    again = relaxation.bounds(*settled(SubsetProblem(problem.W, problem.hessian, Budget.per_layer(20)))[:3])
    assert layer == pytest.approx(again[0], rel=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_searches_that_are_stopped_leave_valid_bounds(variant, rng):
    problem = make_problem(rng, Budget.per_row(4), m=2, n=9, **VARIANTS[variant])
    best, rows, bounds = optimum(problem), SharedRows.of(problem), []
    for polls in (0, 1, 3, 10_000):
        calls = itertools.count()
        split = relaxation.choose(rows, lambda polls=polls, calls=calls: next(calls) >= polls)
        for rest in (0, 1, 10_000):
            calls = itertools.count()
            v, _ = relaxation.relax(rows, split, lambda rest=rest, calls=calls: next(calls) >= rest)
            bounds.append(relaxation.bounds(rows, split, v).sum())
            assert bounds[-1] <= best
    assert bounds[0] < bounds[2] < bounds[-1]


@pytest.mark.parametrize("unit", [2.0**-60, 2.0**60])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_units_do_not_matter(refit, unit, rng):
    """Single precision has no room for them; the search works in units of its own."""
    problem = make_problem(rng, Budget.per_row(4), m=2, n=8, refit=refit)
    other = SubsetProblem(unit * problem.W, problem.hessian.dense(0) * unit, Budget.per_row(4), refit=refit)
    bounds = [relaxation.bounds(*settled(p)[:3]) for p in (problem, other)]
    np.testing.assert_allclose(bounds[1], unit**3 * bounds[0], rtol=1e-6)


def test_singular_curvatures_of_selections_are_split(rng):
    X = rng.standard_normal((3, 8))
    for H in (X.T @ X, np.zeros((8, 8))):
        problem = SubsetProblem(rng.standard_normal((2, 8)), H, Budget.per_row(4), refit=False)
        assert relaxation.bounds(*settled(problem)[:3]).sum() <= optimum(problem)


def test_what_is_shared(rng):
    assert shareable(make_problem(rng, Budget.per_row(2)))
    assert not shareable(make_problem(rng, Budget.per_row(2), kind="stacked"))
    assert not shareable(make_problem(rng, Budget.columns(2)))
    with pytest.raises(ValueError, match="share one curvature"):
        SharedRows.of(make_problem(rng, Budget.columns(2)))
    assert alike(blocks(make_problem(rng, Budget.n_of_m(1, 3))))
    assert not alike(blocks(make_problem(rng, Budget.per_row(2), refit=False)))
    uneven = blocks(make_problem(rng, Budget.per_row(2)))[0]
    assert not alike([replace(uneven, labels=np.array([0, 0, 1, 1, 1, 1]), keep=np.array([1, 2]))])
    factor = SubsetProblem(
        rng.standard_normal((2, 6)), FactorHessian(rng.standard_normal((3, 6)), 0.2), Budget.per_row(3)
    )
    assert relaxation.bounds(*settled(factor)[:3]).sum() <= optimum(factor)


def test_correlated_rows_gain_by_the_barrier():
    """A layer of 60 inputs: the split's bound in terms of the start's, as a guard of its quality."""
    rng = np.random.default_rng(1)
    problem = SubsetProblem(rng.standard_normal((30, 60)), gram(rng, 60), Budget.n_of_m(2, 4))
    rows, split, v, _ = settled(problem)
    plain = replace(split, d=0.99 * largest_split(rows.H, split.inverse))
    assert (
        relaxation.bounds(rows, split, v).sum()
        > 1.1 * relaxation.bounds(rows, plain, relaxation.relax(rows, plain)[0]).sum()
    )


def test_bounds_at_a_price_hold_for_every_count(rng):
    """A row's cost and what it pays, in rational arithmetic; tight where all or nothing is kept."""
    problem = make_problem(rng, Budget.per_layer(7), m=2, n=6)
    rows, split, _, _ = settled(problem)
    masks = list(itertools.product([False, True], repeat=6))
    H = fractions(problem.hessian.dense(0))
    best = np.array([[_exact_cost(H, fractions(w), mask) for mask in masks] for w in problem.W])
    kept = np.array([6 - sum(mask) for mask in masks])
    close = []
    for price in (1e-9, 1e-3, 0.03, 0.1, 0.5, 1e3):
        own = rows.priced(price)
        v, _ = relaxation.relax(own, split)
        found = shared_rows.row_bounds(own, split.d, v)
        least = (best + Fraction(price) * kept).min(axis=1)
        assert all(low <= exact for low, exact in zip(found, least, strict=True))
        close.append(float(sum(found) / sum(map(float, least))))
    assert min(close[0], close[-1]) > 0.999
    assert min(close) > 0.5


def _exact_cost(H, w, mask):
    """Of a joint row's mask: the kept weights move to make up for those that go."""
    P = [i for i, gone in enumerate(mask) if gone]
    K = [i for i, gone in enumerate(mask) if not gone]
    D = np.array([Fraction(0)] * len(mask))
    D[P] = -w[P]
    if K and P:
        D[K] = -_solve_exactly(H[np.ix_(K, K)], H[np.ix_(K, P)] @ D[P])
    return D @ H @ D / 2


def test_a_layers_pool_is_bounded_better_by_its_price():
    """With a flat direction, or with time for splits of the rows' own; never above the optimum."""
    solver = Relaxation(wide=4, grouped=4)
    gained = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        problem = make_problem(rng, Budget.per_layer(8), m=2, n=8)
        best = optimum(problem)
        plain = float(relaxation.bounds(*settled(problem)[:3])[0])
        quick, slow = solve(problem, solver), solve(problem, solver, time_limit=60.0)
        assert plain * (1.0 - 1e-9) <= quick.bound <= slow.bound * (1.0 + 1e-9)
        assert slow.bound <= best
        assert slow.stats["own_splits"] == 2
        gained.append((slow.bound - plain) / (best - plain))
    assert np.mean(gained) > 0.1
