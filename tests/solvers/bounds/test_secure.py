import numpy as np
import pytest

from solvers.bounds.secure import certainly_semidefinite, secure
from tests.solvers.oracles import gram

SIZES = [1e-36, 1e-12, 1.0, 1e12, 1e36]


@pytest.mark.parametrize("size", SIZES)
def test_well_conditioned_matrices_are_semidefinite_at_any_scale(size, rng):
    H = size * gram(rng, 40)
    assert certainly_semidefinite(H)
    H[3, 3] *= -1.0
    assert not certainly_semidefinite(H)


@pytest.mark.parametrize("n", [6, 40])
def test_a_matrix_below_zero_by_more_than_rounding_is_found(n, rng):
    H = gram(rng, n, damping=0.0)
    low = float(np.linalg.eigvalsh(H)[0])
    assert not certainly_semidefinite(H - 1.001 * low * np.eye(n))


def test_columns_without_curvature_are_left_out(rng):
    H = gram(rng, 30)
    H[[2, 7]] = H[:, [2, 7]] = 0.0
    assert certainly_semidefinite(H)
    assert certainly_semidefinite(np.zeros((30, 30)))
    H[2, 7] = H[7, 2] = 1e-12
    assert not certainly_semidefinite(H)


@pytest.mark.parametrize(("twin", "right"), [(0.0, True), (1.0, True), (-(2.0**-40), False)])
def test_small_singular_matrices_are_judged_exactly(twin, right):
    X = np.array([[1.0, 1, 2, 0], [0, 0, 3, 0], [2, 2, -1, 0]])
    H = X.T @ X
    H[0, 0] += twin
    assert certainly_semidefinite(H) is right


@pytest.mark.parametrize("size", SIZES)
def test_splits_are_secured_at_any_scale(size, rng):
    w = 10.0 ** rng.uniform(-9, 9, 12)
    H = size * gram(rng, 12) * np.outer(w, w)
    d = secure(H, 0.01 * np.diagonal(H), positive=True)
    assert (d > 0).all()
    assert (d <= 0.01 * np.diagonal(H)).all()
    assert certainly_semidefinite(H - np.diag(d))
