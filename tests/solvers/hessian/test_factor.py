"""Strongest directions and preconditioned gradients against dense decompositions and systems."""

import numpy as np
import pytest

from solvers import BlockDiagonalHessian, FactorHessian
from solvers.hessian import factor
from solvers.hessian.factor import solve_by_gradients, strongest


def decaying(rng, N=40, n=60):
    """A factor whose singular values fall by a factor of 0.7 each."""
    U, V = (np.linalg.qr(rng.standard_normal((k, N)))[0] for k in (N, n))
    return FactorHessian(np.sqrt(N) * (U * 0.7 ** np.arange(N)) @ V.T, 1e-4)


def test_the_strongest_directions_are_found(rng):
    H = decaying(rng)
    squares = rng.random(60) + 0.5
    Q, Z = strongest(H, squares, 8)
    F = H.root()
    np.testing.assert_allclose(Q.T @ Q, np.eye(8), atol=1e-6)
    np.testing.assert_allclose(Z, F.T @ Q, atol=1e-6)
    exact = np.linalg.svd(F * np.sqrt(squares))[1][:8]
    np.testing.assert_allclose(np.linalg.norm(Z * np.sqrt(squares)[:, None], axis=0), exact, rtol=1e-3)


def test_no_more_directions_than_there_are(rng):
    H = FactorHessian(rng.standard_normal((30, 3)) @ rng.standard_normal((3, 50)), 0.1)
    assert strongest(H, np.ones(50), 8)[0].shape == (30, 3)


@pytest.mark.parametrize("count", [20, 60])
def test_gradients_solve_to_rounding(count, rng):
    H, index = decaying(rng), np.sort(rng.choice(60, count, replace=False))
    rhs = rng.standard_normal((count, 2))
    found = solve_by_gradients(H, 1e-4, strongest(H, np.ones(60), 8)[1], index, rhs)
    exact = np.linalg.solve(H.dense(0)[np.ix_(index, index)], rhs)
    np.testing.assert_allclose(found, exact, rtol=1e-8, atol=1e-8 * np.abs(exact).max())


def test_lost_damping_is_said(rng):
    H = FactorHessian(np.outer(np.ones(4), np.ones(6)), 1e-18)
    with pytest.raises(ValueError, match="singular"):
        solve_by_gradients(H, 1e-18, np.zeros((6, 1)), np.arange(6), rng.standard_normal((6, 1)))


def test_large_factors_are_solved_by_gradients(rng, monkeypatch):
    H = decaying(rng)
    exact = np.linalg.solve(H.dense(0), np.ones(60))
    monkeypatch.setattr(factor, "LARGE", 30)
    monkeypatch.setattr(FactorHessian, "kernel", lambda *_: pytest.fail("formed the kernel"))
    np.testing.assert_allclose(H.solve(0, np.arange(60), np.ones(60)), exact, rtol=1e-7)
    assert H.sketch() is H.sketch()


def test_blocks_side_by_side_have_strongest_directions(rng):
    H = BlockDiagonalHessian([decaying(rng), decaying(rng)])
    Q, Z = strongest(H, np.ones(120), 6)
    assert Q.shape == (H.N, 6)
    np.testing.assert_allclose(Z, H.root().T @ Q, atol=1e-6)
