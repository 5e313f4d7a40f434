import numpy as np
import pytest

from solvers.hessian import DenseHessian, FactorHessian, StackedHessian, supports
from solvers.hessian.supports import solve_each
from tests.solvers.oracles import gram

M, N = 7, 24


@pytest.fixture
def refined(monkeypatch):
    """The systems that were factored in double precision after all, where all supports count as wide."""
    exact, solve = [], supports.cholesky_solve
    monkeypatch.setattr(supports, "WIDE", 1)
    monkeypatch.setattr(supports, "BATCH", 3)
    monkeypatch.setattr(supports, "cholesky_solve", lambda A, b: exact.append(len(A)) or solve(A, b))
    return exact


def case(rng):
    chosen = rng.random((M, N)) < rng.uniform(0.2, 0.9, (M, 1))
    chosen[2] = False
    chosen[4] = chosen[5]
    return chosen, rng.standard_normal((M, N))


def dense(matrices, chosen, rhs):
    x = np.zeros(rhs.shape)
    for r, (H, on) in enumerate(zip(matrices, chosen, strict=True)):
        x[r, on] = np.linalg.solve(H[np.ix_(on, on)], rhs[r, on])
    return x


@pytest.mark.parametrize("kind", ["dense", "stacked", "factor"])
def test_every_row_solves_its_own_system(kind, rng):
    chosen, rhs = case(rng)
    H = np.stack([gram(rng, N) for _ in range(M)]) if kind == "stacked" else gram(rng, N)
    hessian = StackedHessian(H) if kind == "stacked" else DenseHessian(H)
    if kind == "factor":
        hessian = FactorHessian(rng.standard_normal((3 * N, N)), 0.1)
    matrices = [hessian.dense(r) for r in range(M)]
    np.testing.assert_allclose(solve_each(hessian, chosen, rhs), dense(matrices, chosen, rhs), atol=1e-10)


@pytest.mark.parametrize("threaded", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1e-60, 1e60])
def test_single_precision_is_refined_to_double_at_any_scale(scale, threaded, rng, refined, monkeypatch):
    monkeypatch.setattr(supports, "LARGE", 0 if threaded else N + 1)
    chosen, rhs = case(rng)
    rhs[6] = 0.0
    units = 10.0 ** rng.uniform(-4, 4, N)
    H = scale * gram(rng, N) * np.outer(units, units)
    x = solve_each(DenseHessian(H), chosen, rhs)
    expected = dense([H] * M, chosen, rhs)
    assert not refined
    assert (x[~chosen] == 0.0).all()
    size = np.abs(expected * units).max(axis=1, keepdims=True)
    assert (np.abs((x - expected) * units) <= 1e-11 * size).all()


def test_what_single_precision_cannot_tell_from_singular_is_factored_in_double(rng, refined):
    chosen, rhs = case(rng)
    chosen[:2] = True
    chosen[1, 3] = False
    Q, _ = np.linalg.qr(rng.standard_normal((N, N)))
    H = (Q * np.geomspace(1e-9, 1.0, N)) @ Q.T
    H = 0.5 * (H + H.T)
    x = solve_each(DenseHessian(H), chosen, rhs)
    assert N in refined
    left = (x @ H - rhs) * chosen
    assert (np.abs(left).max(axis=1) <= 1e-5 * np.abs(rhs).max(axis=1)).all()


def test_a_singular_block_is_refused(rng, refined):
    H = np.ones((N, N)) + np.diag((np.arange(N) > 1).astype(float))
    chosen = np.ones((2, N), dtype=bool)
    chosen[1, 5] = False
    with pytest.raises(ValueError, match="hessian is singular where weights move"):
        solve_each(DenseHessian(H), chosen, np.ones((2, N)))


@pytest.mark.parametrize("wide", [1, 10**6], ids=["single", "double"])
def test_times_are_those_of_one_row_and_its_products(wide, rng, monkeypatch):
    monkeypatch.setattr(supports, "WIDE", wide)
    monkeypatch.setattr(supports, "workers", lambda: 2)
    ticks = iter(range(100))
    monkeypatch.setattr(supports.time, "perf_counter", lambda: next(ticks))
    hessian = DenseHessian(gram(rng, N))
    products = 5 if wide == 1 else 2
    monkeypatch.setattr(supports, "LARGE", 5)
    assert supports.seconds(hessian, 10, 4) == pytest.approx(supports.SLACK * 10 * (1 + products / 10))
    assert supports.seconds(hessian, 10, 5) == pytest.approx(supports.CONTENTION * 5 * (1 + products / 10))
    assert supports.seconds(hessian, 10, 0) == 0.0
