import numpy as np
import pytest
from torch.nn import functional as F

from cbs.curvature.gauss_newton import gauss_newton_factor
from cbs.curvature.inverse import inverse_by_outer_products
from cbs.network.layers import find_layers
from solvers import FactorHessian
from tests.cbs.networks import mlp, samples, seeded


@pytest.mark.parametrize("alpha", [1e-4, 1e-2, 3.0])
@pytest.mark.parametrize(("P", "n"), [(5, 9), (40, 9), (1, 1)])
def test_recursion_ends_at_the_dense_inverse(P, n, alpha):
    X = np.random.default_rng(P).standard_normal((P, n))
    found = inverse_by_outer_products(X, alpha)
    np.testing.assert_allclose(found, np.linalg.inv(alpha * np.eye(n) + X.T @ X / P), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(found, found.T, rtol=1e-12, atol=1e-9)


def test_alpha_is_the_absolute_damping_of_the_curvature():
    model, data = seeded(mlp), samples(12)
    X = gauss_newton_factor(model, find_layers(model), data, F.cross_entropy).numpy()
    H = FactorHessian(X, 0.03)
    every = np.arange(H.n)
    found = inverse_by_outer_products(X, 0.03)
    np.testing.assert_allclose(np.diagonal(found), H.inverse_diagonal(0, every), rtol=1e-9)
    np.testing.assert_allclose(found[:, 4], H.solve(0, every, np.eye(H.n)[4]), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("X", [np.ones(3), np.ones((0, 3)), np.full((2, 2), np.nan)])
def test_rows_must_be_a_matrix_of_numbers(X):
    with pytest.raises(ValueError, match="X must be a matrix"):
        inverse_by_outer_products(X, 1.0)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_alpha_must_be_positive(alpha):
    with pytest.raises(ValueError, match="alpha must be positive and finite"):
        inverse_by_outer_products(np.ones((2, 2)), alpha)
