"""Compiled Cholesky factors, against dense linear algebra."""

import numpy as np
import pytest

from solvers.bounds import cholesky
from tests.solvers.oracles import gram

N = 7
LABELS = np.array([0, 0, 0, 2, 2, 5, 5])


def factor_of(A):
    """L as the compiled code keeps it, and as NumPy does."""
    L = A.copy()
    assert cholesky.factorise(L, len(A))
    return L, np.linalg.cholesky(A)


def test_factors_of_leading_blocks(rng):
    A = gram(rng, N)
    L, work = A.copy(), np.full((N, N), np.nan)
    assert cholesky.factorise(L, N - 2)
    expected = np.linalg.cholesky(A[:-2, :-2])
    np.fill_diagonal(expected, 1 / np.diag(expected))
    np.testing.assert_allclose(np.tril(L[:-2, :-2]), expected)
    shift = rng.uniform(0, 1, N) * np.linalg.eigvalsh(A)[0]
    assert cholesky.factorise_shifted(A, shift, work)
    np.testing.assert_allclose(np.diag(work), 1 / np.diag(np.linalg.cholesky(A - np.diag(shift))))


@pytest.mark.parametrize("spoilt", [-1.0, 0.0, np.nan])
def test_what_is_not_definite_is_told(spoilt, rng):
    A = gram(rng, N)
    A[4, :] = A[:, 4] = 0.0
    A[4, 4] = spoilt
    assert not cholesky.factorise(A.copy(), N)
    assert cholesky.factorise(A.copy(), 4)
    lowest = np.linalg.eigvalsh(gram(rng, N))[0]
    H = gram(rng, N)
    assert not cholesky.factorise_shifted(H, np.full(N, lowest + np.trace(H)), A)


def test_pivots_are_raised_where_that_is_asked(rng):
    """What is semidefinite up to rounding is factored as if a little were added to its diagonal."""
    x = rng.standard_normal(N)
    A = np.outer(x, x)
    L = A.copy()
    assert cholesky.factorise(L, N, 1e-6)
    full = np.tril(L, -1) + np.diag(1 / np.diag(L))
    np.testing.assert_allclose(np.diag(full)[1:], 1e-3 * np.abs(x[1:]), rtol=1e-6)
    np.testing.assert_allclose(full @ full.T, A, atol=1e-5 * x @ x)
    assert not cholesky.factorise(-A, N, 1e-6)


def test_solves_and_inverses(rng):
    A, x, C = gram(rng, N), rng.standard_normal(N), rng.standard_normal((N, 3))
    L, full = factor_of(A)
    for apply, matrix in ((cholesky.forward, full), (cholesky.backward, full.T)):
        y = x.copy()
        apply(L, y, N)
        np.testing.assert_allclose(y, np.linalg.solve(matrix, x))
    rows = C.copy()
    cholesky.forward_rows(L, rows, N)
    np.testing.assert_allclose(rows, np.linalg.solve(full, C))
    np.testing.assert_allclose(cholesky.half_inverse(L, N), np.linalg.inv(full), atol=1e-12)
    np.testing.assert_allclose(cholesky.inverse(L, N), np.linalg.inv(A), rtol=1e-9)


def test_moves_get_the_pools_sums_that_they_lack(rng):
    """`x = L'^-1 (y - V'(V y - lack))` is the nearest move, in the norm of A, whose pools sum to lack."""
    A, y, wanted = gram(rng, N), rng.standard_normal(N), rng.standard_normal(3)
    L, full = factor_of(A)
    lack = wanted.copy()
    assert cholesky.count_pools(LABELS) == 3
    V = cholesky.pool_basis(L, LABELS, lack)
    np.testing.assert_allclose(V @ V.T, np.eye(3), atol=1e-12)
    E = (np.unique(LABELS)[:, None] == LABELS).astype(float)
    x = np.linalg.solve(full.T, y - V.T @ (V @ y - lack))
    np.testing.assert_allclose(E @ x, wanted)
    free = np.linalg.solve(full.T, y)
    multipliers = np.linalg.lstsq(E.T, A @ (x - free), rcond=None)[0]
    np.testing.assert_allclose(E.T @ multipliers, A @ (x - free), atol=1e-9)
    C = np.stack([y, 2 * y], axis=1)
    cholesky.project(V, y)
    cholesky.project_rows(V, C)
    np.testing.assert_allclose(V @ y, 0.0, atol=1e-12)
    np.testing.assert_allclose(C, np.stack([y, 2 * y], axis=1), atol=1e-12)
