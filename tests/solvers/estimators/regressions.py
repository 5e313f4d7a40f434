"""Regressions that the tests of the estimators share, and all of their subsets by plain least squares."""

import itertools

import numpy as np


def regression(seed=0, N=60, p=7, outputs=1, rows=None):
    """Correlated columns, three of which count; `y [N]` or `[N, outputs]`."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, p)) @ rng.standard_normal((p, p)) + rng.standard_normal(p)
    w = np.zeros((outputs, p))
    w[:, :3] = 1.0 + rng.random((outputs, 3))
    Y = X @ w.T + 3.0 + 0.5 * rng.standard_normal((N, outputs))
    return X, Y[:, 0] if outputs == 1 else Y


def sum_of_squares(X, y, columns, weight=None, intercept=True, ridge=None):
    """The least sum of squares of some columns, and its coefficients, by the normal equations' QR.

    `ridge [p]` is what each squared coefficient costs.
    """
    s = np.ones(len(X)) if weight is None else weight
    Y = y.reshape(len(y), -1)
    A = X[:, columns]
    ridge = np.zeros(X.shape[1]) if ridge is None else ridge
    if intercept:
        A = np.column_stack([A, np.ones(len(X))])
    top = np.sqrt(s)[:, None]
    penalty = np.diag(np.append(np.sqrt(ridge[columns]), [0.0] if intercept else []))
    M, B = np.vstack([top * A, penalty]), np.vstack([top * Y, np.zeros((len(penalty), Y.shape[1]))])
    w = np.linalg.lstsq(M, B, rcond=None)[0]
    return float(((M @ w - B) ** 2).sum()), w


def best_subset(X, y, k, allowed=lambda columns: True, **options):
    """The least sum of squares over all subsets of k columns, and the subset."""
    subsets = [list(c) for c in itertools.combinations(range(X.shape[1]), k) if allowed(c)]
    return min((sum_of_squares(X, y, columns, **options)[0], columns) for columns in subsets)
