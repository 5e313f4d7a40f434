import numpy as np
import pytest

from solvers import Budget, FactorHessian, SubsetProblem
from solvers.heuristics.published.impacts import DenseImpacts, FactorImpacts, impacts

M, N, SAMPLES = 3, 6, 4


def make(rng, kind, budget, gradient=True):
    X = rng.standard_normal((SAMPLES, N))
    H = {
        "shared": X.T @ X / SAMPLES + 0.1 * np.eye(N),
        "stacked": np.stack([np.cov(rng.standard_normal((N, 20))) for _ in range(M)]),
        "factor": FactorHessian(X, 0.1),
    }[kind]
    G = rng.standard_normal((M, N)) if gradient else None
    return SubsetProblem(rng.standard_normal((M, N)), H, budget, refit=False, gradient=G)


def value(problem, x):
    """The problem's value at any set of items, whatever the budget."""
    mask = np.repeat(x[None], M, axis=0) if problem.pools.coupled else x.reshape(M, N)
    D = np.where(mask, -problem.W, 0.0)
    total = 0.5 * np.sum(D * problem.hessian.matmul(D))
    return total + (0.0 if problem.G is None else np.sum(problem.G * D))


@pytest.mark.parametrize("kind", ["shared", "stacked", "factor"])
@pytest.mark.parametrize("budget", [Budget.per_layer(7), Budget.columns(3)])
@pytest.mark.parametrize("gradient", [True, False])
def test_impacts_follow_the_value_through_swaps(rng, kind, budget, gradient):
    problem = make(rng, kind, budget, gradient)
    state = impacts(problem)
    x = problem.pools.smallest(rng.random(problem.pools.labels.shape)).ravel()
    state.reset(x)
    for _ in range(5):
        i, j = rng.choice(np.flatnonzero(x)), rng.choice(np.flatnonzero(~x))
        swapped = x.copy()
        swapped[[i, j]] = False, True
        pull, entry = state.pull(np.array([i, j])), state.entries(int(i), np.array([j]))[0]
        a, b = state.diagonal[[i, j]]
        change = -pull[0] + a / 2 + pull[1] + b / 2 - entry
        assert value(problem, swapped) - value(problem, x) == pytest.approx(change, abs=1e-11)
        state.swap(int(i), int(j))
        x = swapped
        assert state.value() == pytest.approx(value(problem, x), abs=1e-11)


def test_many_entries_are_one_product(rng, monkeypatch):
    state = impacts(make(rng, "factor", Budget.per_layer(7)))
    items = np.array([0, 1, 2, 4, 5, 9])
    few = state.entries(3, items)
    monkeypatch.setattr("solvers.heuristics.published.impacts.MANY", 2)
    np.testing.assert_allclose(state.entries(3, items), few, atol=1e-14)
    assert few[:5].all()


def test_wide_factors_are_never_formed(rng, monkeypatch):
    problem = make(rng, "factor", Budget.per_layer(7))
    monkeypatch.setattr(FactorHessian, "dense", lambda *_: pytest.fail("formed the dense matrix"))
    state = impacts(problem)
    assert isinstance(state, FactorImpacts)
    state.reset(np.arange(M * N) < 7)
    assert len(state.all_pulls()) == M * N


def test_single_precision_is_exact(rng):
    X = rng.standard_normal((SAMPLES, N)).astype(np.float32)
    W = rng.standard_normal((M, N))
    found = []
    for factor in (X, X.astype(np.float64)):
        state = impacts(SubsetProblem(W, FactorHessian(factor, 0.1), Budget.per_layer(7), refit=False))
        state.reset(np.arange(M * N) < 7)
        state.swap(3, 9)
        found.append([state.all_pulls(), state.pull(np.array([4, 9])), state.entries(4, np.array([2, 5]))])
    for single, double in zip(*found, strict=True):
        np.testing.assert_allclose(single, double, rtol=1e-12)


def test_tall_factors_are_looked_up(rng):
    problem = SubsetProblem(
        rng.standard_normal((1, 3)),
        FactorHessian(rng.standard_normal((9, 3))),
        Budget.per_layer(1),
        refit=False,
    )
    assert isinstance(impacts(problem), DenseImpacts)
