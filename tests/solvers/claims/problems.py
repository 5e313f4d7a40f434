"""Random small problems of every kind, many of them on the edge of what double precision can tell."""

import numpy as np

from solvers import BlockDiagonalHessian, Budget, DenseHessian, FactorHessian, SubsetProblem

SCALES = (1.0, 1.0, 1e-12, 1e-6, 1e6, 1e12)
LARGEST = 8
"""Most inputs, movable ones included."""


def random_problem(seed, budget=None):
    """A problem, or a ValueError from the constructor where its curvature is too close to singular.

    Args:
        seed: of every choice.
        budget: a budget kind; None for any.
    """
    rng = np.random.default_rng([seed, 7])
    n, m = int(rng.integers(1, LARGEST + 1)), int(rng.integers(1, 4))
    movable = _movable(rng, n)
    p, refit = n - len(movable), bool(rng.random() < 0.55)
    W = _weights(rng, m, n)
    unit = _units(rng, n)
    H = _curvature(rng, m, n, unit, refit)
    W = W / unit
    W *= rng.choice(SCALES)
    G = _gradient(rng, W, H) if rng.random() < 0.4 else None
    return SubsetProblem(
        W, H, _budget(rng, budget, m, p), refit=refit, gradient=G, movable=movable.tolist()
    )  # fmt: skip


def _movable(rng, n):
    count = int(rng.integers(0, min(3, n))) if rng.random() < 0.35 else 0
    return np.sort(rng.choice(n, size=count, replace=False))


def _weights(rng, m, n):
    kind = rng.integers(6)
    W = rng.standard_normal((m, n))
    if kind == 0:
        W = rng.integers(-2, 3, (m, n)).astype(float)
    if kind == 1:
        W *= rng.random((m, n)) < 0.5
    if kind == 2:
        W[:, rng.integers(n)] *= 10.0 ** rng.integers(2, 9)
    if kind == 3:
        W[:, 1:] = np.where(rng.random((m, n - 1)) < 0.5, W[:, :-1], W[:, 1:])
    return W


def _units(rng, n):
    """What the columns are measured in; powers of ten for some, else ones."""
    return 10.0 ** rng.integers(-4, 5, n) if rng.random() < 0.25 else np.ones(n)


def _curvature(rng, m, n, unit, refit):
    kind = rng.choice(("shared", "shared", "stacked", "factor", "blocks"))
    size = float(rng.choice(SCALES))
    if kind == "factor":
        X = _inputs(rng, int(rng.integers(1, n + 4)), n) * unit * np.sqrt(size)
        mean = float(np.square(X).mean())
        damping = 0.0 if not refit and rng.random() < 0.3 else mean * 10.0 ** rng.integers(-9, 1)
        return FactorHessian(X, float(damping) if damping or not refit else 1e-3)
    if kind == "blocks":
        cut = int(rng.integers(0, n + 1))
        parts = [part for part in (np.arange(cut), np.arange(cut, n)) if len(part)]
        return BlockDiagonalHessian([DenseHessian(_dense(rng, len(p), unit[p], refit) * size) for p in parts])
    if kind == "stacked":
        return np.stack([_dense(rng, n, unit, refit) for _ in range(m)]) * size
    return _dense(rng, n, unit, refit) * size


def _inputs(rng, N, n):
    X = rng.standard_normal((N, n))
    if rng.random() < 0.3:
        X = rng.integers(-2, 3, (N, n)).astype(float)
    if n > 1 and rng.random() < 0.2:
        X[:, rng.integers(1, n)] = X[:, 0]
    if rng.random() < 0.15:
        X[:, rng.integers(n)] = 0.0
    return X


def _dense(rng, n, unit, refit):
    kind = rng.integers(5)
    if kind == 0:  # all conditions to 1e14
        Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
        H = Q * np.logspace(0, -float(rng.uniform(0, 14)), n) @ Q.T
    elif kind == 1:  # ones, and a little on the diagonal
        H = np.ones((n, n)) + np.diag(rng.integers(1, 4, n) * 2.0 ** -int(rng.integers(2, 46)))
    else:
        X = _inputs(rng, int(rng.integers(1, 3 * n + 1)), n)
        H = X.T @ X / len(X)
        if refit or rng.random() < 0.5:
            H = H + max(float(np.diagonal(H).mean()), 1e-3) * 10.0 ** -int(rng.integers(0, 10)) * np.eye(n)
    H = 0.5 * (H + H.T) * np.outer(unit, unit)
    return 0.5 * (H + H.T)


def _gradient(rng, W, H):
    if rng.random() < 0.5:  # as large as the weights' own pull
        pull = H.matmul(W) if hasattr(H, "matmul") else np.einsum("...ij,...j->...i", H, W)
        return (
            rng.choice((-1.0, 1.0, 0.5))
            * pull
            * np.where(rng.random(W.shape) < 0.8, 1.0, rng.standard_normal(W.shape))
        )
    return rng.standard_normal(W.shape) * np.abs(W).mean() * float(rng.choice(SCALES))


def _budget(rng, kind, m, p):
    kind = kind or rng.choice(("per_row", "row_counts", "per_layer", "n_of_m", "columns"))
    if kind == "per_layer":
        return Budget.per_layer(int(rng.integers(0, m * p + 1)))
    if kind == "row_counts":
        return Budget.per_row(rng.integers(0, p + 1, m).tolist())
    if kind == "columns":
        return Budget.columns(int(rng.integers(0, p + 1)))
    if kind == "n_of_m":
        of = int(rng.choice([d for d in range(1, p + 1) if p % d == 0]))
        return Budget.n_of_m(int(rng.integers(0, of + 1)), of)
    return Budget.per_row(int(rng.integers(0, p + 1)))
