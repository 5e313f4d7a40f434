"""What stands in for compiled functions finds what they find, and a search with it proves the optimum."""

import numpy as np
import pytest

from solvers import Budget, solve
from solvers.bounds import cholesky, stand_ins
from solvers.bounds.interior import saddle
from solvers.bounds.interior.interior_point import saddle_point
from solvers.bounds.interior.saddle import Data, Derivatives
from solvers.instances import random_problem
from solvers.runtime.plain import plain, plainly

N = 13
LOWER = np.tril_indices(N)


@pytest.fixture
def A(rng):
    X = rng.standard_normal((2 * N, N))
    return X.T @ X / N + 0.1 * np.eye(N)


def factor(A):
    L = A.copy()
    assert cholesky.factorise(L, N)
    return L


def test_factors_are_the_compiled_ones(A, rng):
    ours, theirs = (np.pad(A, (0, 2), constant_values=7.0) for _ in range(2))
    assert stand_ins.factorise(ours, N)
    assert cholesky.factorise(theirs, N)
    np.testing.assert_allclose(ours[LOWER], theirs[LOWER], rtol=1e-10)
    assert (ours[N:] == 7.0).all()
    shift, works = 0.05 * rng.random(N), (np.zeros((N, N)), np.zeros((N, N)))
    assert stand_ins.factorise_shifted(A, shift, works[0])
    assert cholesky.factorise_shifted(A, shift, works[1])
    np.testing.assert_allclose(works[0][LOWER], works[1][LOWER], rtol=1e-10)


def test_what_is_not_definite_is_refused_or_lifted(A):
    A[3, 3] = -1.0
    assert not stand_ins.factorise(A.copy(), N)
    assert not stand_ins.factorise_shifted(A, np.zeros(N), np.empty((N, N)))
    flat = np.ones((N, N))
    flat[-1, -1] -= 1e-9
    assert not stand_ins.factorise(flat.copy(), N)
    assert stand_ins.factorise(flat.copy(), N, 1e-12)


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_solves_are_the_compiled_ones(A, rng, name):
    L, x = factor(A), rng.standard_normal(N)
    ours, theirs = x.copy(), x.copy()
    getattr(stand_ins, name)(L, ours, N - 2)
    getattr(cholesky, name)(L, theirs, N - 2)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_rows_and_inverses_are_the_compiled_ones(A, rng):
    L, C = factor(A), rng.standard_normal((N, 5))
    ours, theirs = C.copy(), C.copy()
    stand_ins.forward_rows(L, ours, N)
    cholesky.forward_rows(L, theirs, N)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    np.testing.assert_allclose(stand_ins.half_inverse(L, N), cholesky.half_inverse(L, N), atol=1e-12)
    np.testing.assert_allclose(stand_ins.inverse(L, N), np.linalg.inv(A), atol=1e-10)


def test_pools_are_projected_out_alike(A, rng):
    L, labels, lack = factor(A), np.repeat([0, 1, 2], [4, 3, 6]), rng.standard_normal(3)
    ours, theirs = lack.copy(), lack.copy()
    V, W = stand_ins.pool_basis(L, labels, ours), cholesky.pool_basis(L, labels, theirs)
    np.testing.assert_allclose(V, W, atol=1e-10)
    np.testing.assert_allclose(ours, theirs, atol=1e-10)
    C = rng.standard_normal((N, 4))
    left, right = C.copy(), C.copy()
    stand_ins.project_rows(V, left)
    cholesky.project_rows(V, right)
    np.testing.assert_allclose(left, right, atol=1e-10)


@pytest.mark.parametrize("refit", [True, False])
def test_derivatives_are_the_compiled_ones(A, rng, refit):
    labels, z = np.zeros(N, np.int64), rng.uniform(0.2, 0.8, N)
    data = Data(refit, A, rng.standard_normal((N, 2 if refit else 1)), 3.0, labels, np.array([6.0]))
    d = 0.05 * rng.random(N) if refit else -rng.random(N)
    ours, theirs = (Derivatives(*(np.zeros(N),) * 2, *(np.zeros((N, N)) for _ in range(3))) for _ in range(2))
    ours, theirs = (each._replace(d=np.zeros(N)) for each in (ours, theirs))
    name = "joint" if refit else "selection"
    value = getattr(stand_ins, name)(data, z, d, ours)
    assert value == pytest.approx(getattr(saddle, name)(data, z, d, theirs), rel=1e-10)
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-10)
    with plainly():
        at, split, steps = saddle_point(data, 1e-6, 40)
    compiled = saddle_point(data, 1e-6, 40)
    np.testing.assert_allclose(split, compiled[1], atol=1e-6)
    np.testing.assert_allclose(at, compiled[0], atol=1e-6)
    assert steps == compiled[2]


@pytest.mark.parametrize("budget", [Budget.per_row(5), Budget.n_of_m(2, 4)])
@pytest.mark.parametrize("refit", [True, False])
def test_a_search_without_compiled_code_proves_the_optimum(budget, refit):
    problem = random_problem(2, 12, budget, seed=3, refit=refit)
    with plainly():
        assert plain()
        found = solve(problem, "branch-and-bound")
    best = solve(problem, "brute-force").value
    assert found.status.value == "optimal"
    assert found.stats["engine"] == "batched"
    assert best * (1 - 1e-4) <= found.bound <= best + 1e-9 <= found.value + 2e-9
    assert not plain()
