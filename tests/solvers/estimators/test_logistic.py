"""The logistic loss: derivatives by differences, fits by scikit-learn, models and bounds over all subsets."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from solvers import Budget, solve
from solvers.estimators.columns import Columns
from solvers.estimators.logistic import Logistic, water


def make(rows=1, intercept=True, alpha=0.7, seed=0, N=50, p=5):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, p)) @ rng.standard_normal((p, p))
    signs = np.where(rng.random((rows, N)) < 1.0 / (1.0 + np.exp(-X[:, :rows].T)), 1.0, -1.0)
    columns = Columns.of(X, rng.random(N) + 0.5, intercept=intercept, standardize=True)
    return Logistic(columns, signs, alpha * columns.penalty, intercept)


@pytest.mark.parametrize("intercept", [True, False])
def test_derivatives_are_those_of_the_loss(intercept, rng):
    loss = make(rows=2, intercept=intercept)
    theta = rng.standard_normal((2, 5 + intercept))
    for row in range(2):
        g, H = loss.derivatives(row, theta[row])
        for j in range(theta.shape[1]):
            up, down = theta.copy(), theta.copy()
            up[row, j] += 1e-5
            down[row, j] -= 1e-5
            assert (loss.losses(up) - loss.losses(down))[row] / 2e-5 == pytest.approx(
                g[j], rel=1e-6, abs=1e-7
            )
            change = loss.derivatives(row, up[row])[0] - loss.derivatives(row, down[row])[0]
            np.testing.assert_allclose(change / 2e-5, H[j], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("support", [[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]])
def test_fits_are_scikit_learns(support):
    loss, chosen = make(), np.flatnonzero(support)
    found = loss.fit(np.array(support, bool))
    Z = loss.columns.Z[:, chosen] if len(chosen) else np.zeros((50, 1))
    other = LogisticRegression(C=1.0 / 0.7, tol=1e-12, max_iter=1000)
    other.fit(Z, loss.signs[0], sample_weight=loss.columns.weight)
    np.testing.assert_allclose(found[0, chosen], other.coef_[0, : len(chosen)], rtol=1e-4, atol=1e-6)
    assert found[0, 5] == pytest.approx(other.intercept_[0], rel=1e-4, abs=1e-6)
    assert not found[0, :5][np.array(support) == 0].any()
    again = loss.fit(np.array(support, bool), found + 3.0)
    np.testing.assert_allclose(again, found, atol=1e-6)


def test_separable_samples_have_a_fit():
    x = np.linspace(-1, 1, 20)[:, None]
    columns = Columns.of(x, np.ones(20), intercept=True, standardize=True)
    loss = Logistic(columns, np.sign(x).T, np.array([1e-4]), True)
    found = loss.fit(np.ones(1, bool))
    assert np.abs(loss.derivatives(0, found[0])[0]).max() < 1e-4
    assert found[0, 0] > 10.0


@pytest.mark.parametrize("rows", [1, 2])
def test_values_of_the_model_are_its_own_minima(rows, rng):
    loss = make(rows=rows)
    theta = 0.5 * rng.standard_normal((rows, 6))
    budget = Budget.columns(3) if rows > 1 else Budget.per_row(3)
    problem = loss.problem(theta, budget, np.array([4]))
    mask = np.zeros((rows, 6), bool)
    mask[:, [0, 2, 3]] = True
    expected = 0.0
    for row in range(rows):
        g, H = loss.derivatives(row, theta[row])

        def model(free, row=row, g=g, H=H):
            d = -theta[row]
            d[[1, 4, 5]] = free
            return g @ d + 0.5 * d @ H @ d

        expected += minimize(model, np.zeros(3), tol=1e-12).fun
    assert problem.value(mask) == pytest.approx(expected, rel=1e-6)
    best = solve(problem)
    assert not best.mask[:, 4:].any()


@pytest.mark.parametrize(("rows", "intercept", "alpha"), [(1, True, 5.0), (2, True, 0.5), (1, False, 1.0)])
def test_no_subset_has_a_smaller_loss_than_the_bound(rows, intercept, alpha):
    loss = make(rows=rows, intercept=intercept, alpha=alpha, seed=3)
    free, groups, keep = np.array([0, 1, 2, 4]), np.array([0, 0, 1, 1]), np.array([1, 1])
    values = []
    for first, second in itertools.product([0, 1], [2, 4]):
        support = np.isin(np.arange(5), [3, first, second])
        values.append(loss.losses(loss.fit(support)).sum())
    bound = loss.bound(free, groups, keep)
    everything = loss.losses(loss.fit(np.ones(5, bool))).sum()
    assert 0.5 * min(values) < bound <= min(values)
    assert bound > 0.9 * everything


def test_the_bound_is_reached_where_nothing_is_left_out():
    loss = make(seed=4)
    whole = loss.losses(loss.fit(np.ones(5, bool))).sum()
    bound = loss.bound(np.arange(5), np.zeros(5, int), np.array([5]))
    assert bound == pytest.approx(whole, rel=1e-6)
    assert bound <= whole


def test_shares_are_the_best_of_the_relaxation(rng):
    for count in (1, 2, 4):
        size = rng.random(6) ** 3
        z = water(size, count)
        assert z.sum() == pytest.approx(count)
        assert (z > 0.0).all()
        assert (z <= 1.0).all()
        for _ in range(50):  # no other shares cost less
            other = np.clip(z + 0.05 * rng.standard_normal(6), 1e-9, 1.0)
            if other.sum() <= count:
                assert (size**2 / other).sum() >= (size**2 / z).sum() * (1.0 - 1e-12)
    assert water(np.array([1.0, 0.0, 0.0]), 2).tolist() == [1.0, 0.0, 0.0]
    assert water(np.zeros(4), 2).tolist() == [0.5] * 4
    assert water(size, 6).tolist() == [1.0] * 6
