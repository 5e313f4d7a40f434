import numpy as np
import pytest

from solvers.bounds.secure import secure
from solvers.checker.semidefinite import semidefinite
from tests.solvers.oracles import gram


def exact(A):
    return np.broadcast_to(0.0, A.shape)


@pytest.mark.parametrize("n", [1, 2, 10, 64, 300])
def test_what_secure_leaves_is_shown(n):
    rng = np.random.default_rng(n)
    H = gram(rng, n, damping=1e-3)
    low = np.linalg.eigvalsh(H)[0]
    for d in (np.full(n, low), low * rng.uniform(0.5, 1.0, n)):
        A = H - np.diag(secure(H, d, True))
        assert np.linalg.eigvalsh(A)[0] < 0.6 * low
        assert semidefinite(A, exact(A)) is None


def test_scales_far_apart():
    rng = np.random.default_rng(0)
    size = 10.0 ** rng.integers(-12, 12, 20)
    H = gram(rng, 20) * np.outer(size, size)
    d = secure(H, 0.05 * size**2, True)
    A = H - np.diag(d)
    assert semidefinite(A, exact(A)) is None


@pytest.mark.parametrize("power", [0, 10, 30, 40, 50])
def test_an_indefinite_matrix_is_never_shown(power):
    rng = np.random.default_rng(power)
    X = rng.integers(-8, 9, (9, 10)).astype(float)
    A = X.T @ X
    A[0, 0] -= 2.0**-power * A[0, 0]
    null = np.linalg.svd(X)[2][-1]
    assert abs(null[0]) > 1e-2
    assert semidefinite(A, exact(A)) is not None


def test_a_known_negative_direction_is_caught_in_the_last_bit():
    v = np.array([1.0, 1.0])
    A = np.array([[1.0, -1.0], [-1.0, 1.0]])
    A[0, 0] = np.nextafter(1.0, 0.0)
    assert v @ A @ v < 0
    assert "smallest eigenvalue" in semidefinite(A, exact(A))


def test_the_error_counts():
    A = np.eye(3)
    assert semidefinite(A, np.full((3, 3), 0.3)) is None
    assert semidefinite(A, np.full((3, 3), 0.34)) is not None
    assert semidefinite(A, np.full((3, 3), np.nan)) is not None
    assert semidefinite(np.full((2, 2), np.nan), np.zeros((2, 2))) is not None


def test_zero_needs_a_margin():
    assert semidefinite(np.zeros((2, 2)), np.zeros((2, 2))) is not None
    assert semidefinite(1e-300 * np.eye(2), np.zeros((2, 2))) is None


def test_any_factor_will_do_but_what_it_leaves_must_dominate(monkeypatch):
    """With a factor of zeros, exactly the diagonally dominant matrices are shown."""
    monkeypatch.setattr(np.linalg, "cholesky", np.zeros_like)
    A = np.full((3, 3), 0.9) + 0.1 * np.eye(3)
    assert semidefinite(A, exact(A)) is not None
    assert semidefinite(A + 0.801 * np.eye(3), exact(A)) is None
    assert semidefinite(np.eye(3), np.full((3, 3), 0.33)) is None
    assert semidefinite(np.eye(3), np.full((3, 3), 0.34)) is not None
    corner = np.full((3, 3), 0.25) + 0.35 * np.eye(3)
    assert semidefinite(np.eye(3), corner) is not None
    assert semidefinite(np.eye(3), corner - 0.11 * np.eye(3)) is None
