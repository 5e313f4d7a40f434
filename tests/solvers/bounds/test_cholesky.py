"""Compiled Cholesky factors, against dense linear algebra."""

import numpy as np
import pytest

from solvers.bounds import cholesky
from tests.solvers.oracles import gram

N = 7
SIZES = (7, 8, 13, 22)
"""Of every remainder by the four rows that are taken at once."""
LABELS = np.array([0, 0, 0, 2, 2, 5, 5])


def factor_of(A):
    """L as the compiled code keeps it, and as NumPy does."""
    L = A.copy()
    assert cholesky.factorise(L, len(A))
    return L, np.linalg.cholesky(A)


@pytest.mark.parametrize("n", SIZES)
def test_factors_of_leading_blocks(n, rng):
    A = gram(rng, n)
    L, work = A.copy(), np.full((n, n), np.nan)
    assert cholesky.factorise(L, n - 2)
    expected = np.linalg.cholesky(A[:-2, :-2])
    np.fill_diagonal(expected, 1 / np.diag(expected))
    np.testing.assert_allclose(np.tril(L[:-2, :-2]), expected)
    np.testing.assert_array_equal(np.triu(L, 1), np.triu(A, 1))
    np.testing.assert_array_equal(L[-2:], A[-2:])
    shift = rng.uniform(0, 1, n) * np.linalg.eigvalsh(A)[0]
    assert cholesky.factorise_shifted(A, shift, work)
    np.testing.assert_allclose(np.diag(work), 1 / np.diag(np.linalg.cholesky(A - np.diag(shift))))


@pytest.mark.parametrize("at", [4, 15])
@pytest.mark.parametrize("spoilt", [-1.0, 0.0, np.nan])
def test_what_is_not_definite_is_told(spoilt, at, rng):
    n = at + 3
    A = gram(rng, n)
    A[at, :] = A[:, at] = 0.0
    A[at, at] = spoilt
    assert not cholesky.factorise(A.copy(), n)
    assert cholesky.factorise(A.copy(), at)
    lowest = np.linalg.eigvalsh(gram(rng, n))[0]
    H = gram(rng, n)
    assert not cholesky.factorise_shifted(H, np.full(n, lowest + np.trace(H)), A)


@pytest.mark.parametrize("n", SIZES)
def test_pivots_are_raised_where_that_is_asked(n, rng):
    """What is semidefinite up to rounding is factored as if a little were added to its diagonal."""
    x = rng.standard_normal(n)
    A = np.outer(x, x)
    L = A.copy()
    assert cholesky.factorise(L, n, 1e-6)
    full = np.tril(L, -1) + np.diag(1 / np.diag(L))
    np.testing.assert_allclose(np.diag(full)[1:], 1e-3 * np.abs(x[1:]), rtol=1e-6)
    np.testing.assert_allclose(full @ full.T, A, atol=1e-5 * x @ x)
    assert not cholesky.factorise(-A, n, 1e-6)


@pytest.mark.parametrize("n", SIZES)
def test_solves_and_inverses(n, rng):
    A, x, C = gram(rng, n), rng.standard_normal(n), rng.standard_normal((n, 3))
    L, full = factor_of(A)
    for apply, matrix in ((cholesky.forward, full), (cholesky.backward, full.T)):
        y = x.copy()
        apply(L, y, n)
        np.testing.assert_allclose(y, np.linalg.solve(matrix, x))
    rows = C.copy()
    cholesky.forward_rows(L, rows, n)
    np.testing.assert_allclose(rows, np.linalg.solve(full, C))
    np.testing.assert_allclose(cholesky.half_inverse(L, n), np.linalg.inv(full), atol=1e-12)
    np.testing.assert_allclose(cholesky.inverse(L, n), np.linalg.inv(A), rtol=1e-9)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("lower", [False, True])
def test_sums_of_products_of_columns(lower, n, rng):
    C, out = rng.standard_normal((n, n)), rng.standard_normal((n, n))
    C = np.tril(C) if lower else C
    expected = out + C[: n - 1].T @ C[: n - 1]
    cholesky.add_gram(C, n - 1, lower, out)
    np.testing.assert_allclose(np.tril(out), np.tril(expected), atol=1e-12)


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
