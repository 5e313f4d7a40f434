"""Every bound holds, in exact arithmetic too."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Budget, SubsetProblem
from solvers.bounds.curves import lower_curves
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.secure import secure
from solvers.bounds.split import split_blocks
from solvers.form.blocks import blocks
from tests.solvers.oracles import (
    BUDGETS,
    all_masks,
    exact_value,
    fractions,
    gram,
    make_problem,
    unbalanced_row,
)

QUICK = settings(derandomize=True, max_examples=40, deadline=None)


def exact_bound(problem, row, d, u):
    """LB(u) of a row in rational arithmetic, from the floats that the problem and the split are made of."""
    H, w, d, u = (fractions(A) for A in (problem.hessian.dense(row), problem.W[row], d, u))
    prune = int(problem.pools.prune[row])
    if problem.refit:
        R = H - np.diag(d)
        q = H @ w - R @ u
        scores = sorted(q * q / (2 * d))[prune:]
        return (w @ H @ w - u @ R @ u) / 2 - sum(scores)
    g = fractions(np.zeros(problem.n) if problem.G is None else problem.G[row])
    R = w[:, None] * H * w - np.diag(d)
    t = R @ u + d / 2 - g * w
    return -(u @ R @ u) / 2 + sum(sorted(t)[:prune])


@QUICK
@given(seed=st.integers(0, 10**6), refit=st.booleans(), spread=st.sampled_from([0.0, 1.0, 2.0]))
def test_the_float_bound_is_below_the_exact_one_at_any_point(seed, refit, spread):
    problem, rng = unbalanced_row(seed, refit, spread), np.random.default_rng(seed)
    (block,) = blocks(problem)
    (best,) = split_blocks([block])
    d = best.d
    tight = relaxed_point(block, d, best.z)
    for u in (tight, tight + 1e-3 * rng.standard_normal(tight.shape), rng.standard_normal(tight.shape)):
        found, truth = lower_bound(block, d, u), exact_bound(problem, 0, d[0], u[0, :, 0])
        assert Fraction(found) <= (max(truth, 0) if refit else truth)
        room = 1e-9 * (block.scale + float(abs(truth)))
        assert found >= float(truth) - room


@QUICK
@given(seed=st.integers(0, 10**6), refit=st.booleans(), spread=st.sampled_from([0.0, 2.0]))
def test_the_float_bound_is_below_the_exact_optimum(seed, refit, spread):
    problem = unbalanced_row(seed, refit, spread)
    (block,) = blocks(problem)
    (best,) = split_blocks([block])
    bound = lower_bound(block, best.d, relaxed_point(block, best.d, best.z))
    optimum = min(exact_value(problem, 0, mask[0]) for mask in all_masks(problem))
    assert Fraction(bound) <= optimum


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_rounding_is_needed_and_small(refit):
    """Where the bound is the optimum itself, the plain float sum would often lie above the exact one."""
    above = 0
    for seed in range(40):
        problem, rng = unbalanced_row(seed, refit, 1.0), np.random.default_rng(seed)
        (block,) = blocks(problem)
        d = secure(block.H[0], np.full(5, 0.9 * np.linalg.eigvalsh(block.H[0])[0]), refit)[None]
        u = rng.standard_normal((1, 5, 1))
        truth = exact_bound(problem, 0, d[0], u[0, :, 0])
        if refit and truth <= 0:
            u = relaxed_point(block, d, np.full(5, block.keep[0] / 5))
            truth = exact_bound(problem, 0, d[0], u[0, :, 0])
        above += Fraction(plain_bound(problem, block, d[0], u[0, :, 0])) > truth
        found = lower_bound(block, d, u)
        assert Fraction(found) <= (max(truth, 0) if refit else truth)
    assert above > 5


def plain_bound(problem, block, d, u):
    """LB(u) as the formula stands, in floating point."""
    R = block.H[0] - np.diag(d)
    prune = int(block.prune[0])
    if block.refit:
        q = block.B[0, :, 0] - R @ u
        return block.constant - 0.5 * u @ R @ u - np.sort(q * q / (2 * d))[prune:].sum()
    t = R @ u + d / 2 - block.B[0, :, 0]
    return -0.5 * u @ R @ u + np.sort(t)[:prune].sum()


@QUICK
@given(
    seed=st.integers(0, 10**6),
    refit=st.booleans(),
    budget=st.sampled_from(["per_row", "n_of_m", "columns"]),
    fixings=st.lists(st.sampled_from([-1, 0, 0, 1]), min_size=6, max_size=6),
)
def test_fixings_bound_the_masks_that_respect_them(seed, refit, budget, fixings):
    rng = np.random.default_rng(seed)
    problem = make_problem(rng, BUDGETS[budget], refit=refit, gradient=not refit)
    block = blocks(problem)[0]
    (best,) = split_blocks([block])
    kept, pruned = np.array(fixings) == 1, np.array(fixings) == -1
    open_values = [
        block.value(mask[0])
        for mask in all_masks(problem)
        if not (mask[0] & kept).any() and not (~mask[0] & pruned).any()
    ]
    u = relaxed_point(block, best.d, best.z)
    bound = lower_bound(block, best.d, u, kept=kept, pruned=pruned)
    free = lower_bound(block, best.d, u)
    if open_values:
        assert bound <= min(open_values)
        assert bound >= free - 1e-12 * block.scale
    else:
        assert bound == np.inf


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_fixing_every_entry_bounds_that_mask_alone(refit, rng):
    """With all entries fixed and u at the mask's own weights the bound is the mask's value."""
    problem = make_problem(rng, Budget.per_row(3), refit=refit, m=1)
    (block,) = blocks(problem)
    (best,) = split_blocks([block])
    for mask in all_masks(problem):
        u = relaxed_point(block, best.d, (~mask[0]).astype(float))
        bound = lower_bound(block, best.d, u, kept=~mask[0], pruned=mask[0])
        assert bound == pytest.approx(block.value(mask[0]), rel=1e-9, abs=1e-12)
        if refit:
            np.testing.assert_allclose(u[0, :, 0], problem.weights(mask)[0], atol=1e-10)
        else:
            np.testing.assert_array_equal(u[0, :, 0], mask[0])


@QUICK
@given(seed=st.integers(0, 10**6))
def test_the_relaxed_point_solves_its_system(seed):
    """`(R + diag(d / z)) u = b` where z is positive, and u = 0 elsewhere, for every right-hand side."""
    rng = np.random.default_rng(seed)
    (block,) = blocks(make_problem(rng, Budget.columns(3), m=3, kind="shared"))
    (best,) = split_blocks([block])
    z = rng.uniform(0.1, 1.0, 6) * (rng.random(6) < 0.7)
    u = relaxed_point(block, best.d, z)[0]
    on = z > 0
    np.testing.assert_array_equal(u[~on], 0.0)
    M = block.H[0] - np.diag(best.d[0])
    M[on, on] += best.d[0][on] / z[on]
    np.testing.assert_allclose((M @ u)[on], block.B[0][on], atol=1e-9)


def test_joint_bounds_are_never_negative(rng):
    (block,) = blocks(make_problem(rng, Budget.per_row(3), m=1))
    (best,) = split_blocks([block])
    assert lower_bound(block, best.d, 1e3 * rng.standard_normal((1, 6, 1))) == 0.0


@pytest.mark.parametrize("kind", ["shared", "stacked"])
@pytest.mark.parametrize(
    ("refit", "gradient"),
    [(True, False), (False, False), (False, True)],
    ids=["joint", "selection", "selection with gradient"],
)
def test_curves_are_below_the_optimum_at_every_count(refit, gradient, kind, rng):
    n = 8
    base = make_problem(rng, Budget.per_row(0), n=n, refit=refit, gradient=gradient, kind=kind)
    lower = lower_curves(base.W, base.hessian, base.G, refit=refit)
    assert lower.shape == (2, n + 1)
    closeness = []
    for k in range(n + 1):
        problem = SubsetProblem(base.W, base.hessian, Budget.per_row(k), refit=refit, gradient=base.G)
        for r, block in enumerate(blocks(problem)):
            best = min(block.value(np.isin(np.arange(n), P)) for P in itertools.combinations(range(n), k))
            assert lower[r, k] <= best
            closeness.append((best - lower[r, k]) / block.scale)
    assert np.mean(closeness) < 0.1
    if refit:
        assert (lower >= 0).all()
        assert (np.diff(lower, axis=1) >= 0).all()


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_ends_of_curves_are_exact(refit, rng):
    problem = make_problem(rng, Budget.per_row(6), refit=refit, gradient=not refit)
    lower = lower_curves(problem.W, problem.hessian, problem.G, refit=refit)
    everything = problem.row_values(np.ones((2, 6), dtype=bool))
    np.testing.assert_allclose(lower[:, 0], 0.0, atol=1e-12 * problem.scale)
    np.testing.assert_allclose(lower[:, -1], everything, rtol=1e-9, atol=1e-12 * problem.scale)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_curves_are_below_the_exact_optimum(refit):
    """Rational arithmetic: what the float curve claims is true of the stored numbers."""
    for seed in range(6):
        problem = unbalanced_row(seed, refit, 2.0)
        lower = lower_curves(problem.W, problem.hessian, problem.G, refit=refit)[0]
        for k in range(problem.n + 1):
            masks = [np.isin(np.arange(5), P) for P in itertools.combinations(range(5), k)]
            assert Fraction(lower[k]) <= min(exact_value(problem, 0, mask) for mask in masks)


@pytest.mark.parametrize("n", [1, 2])
def test_curves_of_the_smallest_rows(n, rng):
    W, H = rng.standard_normal((3, n)), gram(rng, n)
    lower = lower_curves(W, H)
    whole = 0.5 * np.einsum("ri,ij,rj->r", W, H, W)
    np.testing.assert_array_equal(lower[:, 0], 0.0)
    np.testing.assert_allclose(lower[:, n], whole, rtol=1e-12)
