"""Bounds and values of factors against rational arithmetic, and against every mask."""

from fractions import Fraction

import numpy as np
import pytest

from solvers import Budget, FactorHessian, SubsetProblem
from solvers.certificate.original import stored
from solvers.checker.image import image_bound, image_values
from tests.solvers.oracles import BUDGETS, all_masks, dense_move, dense_value, fractions

VARIANTS = pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])


def make(rng, budget, *, refit, gradient=False, movable=(), spread=0.0, N=3, damping=0.25):
    n = 6 + len(movable)
    X = rng.standard_normal((N, n)) * np.exp(spread * rng.standard_normal(n))
    return SubsetProblem(
        rng.standard_normal((2, n)),
        FactorHessian(X, damping),
        budget,
        refit=refit,
        gradient=0.3 * rng.standard_normal((2, n)) if gradient else None,
        movable=movable,
    )


def best_point(problem, mask):
    """`X D / N` of a mask's best move: where the bound is about as high as it gets."""
    return dense_move(problem, mask) @ problem.hessian.X.T / problem.hessian.N


@pytest.mark.parametrize("movable", [(), (1, 6)], ids=["none", "two"])
@pytest.mark.parametrize("gradient", [False, True], ids=["plain", "gradient"])
@VARIANTS
@pytest.mark.parametrize("budget", BUDGETS)
def test_no_mask_is_below_the_bound_of_any_point(budget, refit, gradient, movable, rng):
    problem = make(rng, BUDGETS[budget], refit=refit, gradient=gradient, movable=movable)
    this, masks = stored(problem), list(all_masks(problem))
    best = min(dense_value(problem, mask) for mask in masks)
    for mask in masks[:: max(1, len(masks) // 20)]:
        for scale in (1.0, 0.7):
            assert image_bound(this, scale * best_point(problem, mask)) <= best


@pytest.mark.parametrize("seed", range(4))
@VARIANTS
def test_bounds_are_rounded_down_and_not_far(seed, refit):
    rng = np.random.default_rng(seed)
    problem = make(rng, Budget.per_row(3), refit=refit, gradient=True, spread=3.0, N=4)
    v = rng.standard_normal((2, 4))
    a = fractions(v) @ fractions(problem.hessian.X) + fractions(problem.G)
    w, c = fractions(problem.W), Fraction(1, 4)
    pruned = c * w * w / 2 - a * w
    kept = -a * a / (2 * c) if refit else 0 * a
    exact = sum(kept.ravel()) - 2 * sum((fractions(v) ** 2).ravel())
    exact += sum(sum(sorted(row)[:3]) for row in pruned - kept)
    found = image_bound(stored(problem), v)
    assert Fraction(found) <= exact
    assert found == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("movable", [(), (1, 6)], ids=["none", "two"])
@VARIANTS
def test_values_are_enclosed_closely(refit, movable, rng):
    problem = make(rng, Budget.per_row(3), refit=refit, gradient=True, movable=movable, N=9)
    mask = next(iter(all_masks(problem)))
    low, high, size = image_values(stored(problem), mask)
    exact = [
        dense_value(
            SubsetProblem(
                problem.W[r : r + 1], problem.hessian, Budget.per_row(3), refit=refit,
                gradient=problem.G[r : r + 1], movable=movable,
            ),
            mask[r : r + 1],
        )
        for r in range(2)
    ]  # fmt: skip
    assert (low <= np.array(exact) + 1e-13).all()
    assert (np.array(exact) - 1e-13 <= high).all()
    assert (high - low <= 1e-12 * size).all()
    assert (low < high).all()


def test_a_selection_without_moves_needs_no_damping(rng):
    problem = make(rng, Budget.per_row(3), refit=False, damping=0.0)
    mask = next(iter(all_masks(problem)))
    low, high, _ = image_values(stored(problem), mask)
    assert low.sum() <= problem.value(mask) <= high.sum()
    assert image_bound(stored(problem), best_point(problem, mask)) >= 0.0


def test_moves_without_damping_show_nothing(rng):
    problem = make(rng, Budget.per_row(3), refit=False, movable=(0,), damping=0.0)
    mask = next(iter(all_masks(problem)))
    low, high, _ = image_values(stored(problem), mask)
    assert np.isneginf(low).all()
    assert np.isposinf(high).all()
    assert image_bound(stored(problem), np.ones((2, 3))) == -np.inf
