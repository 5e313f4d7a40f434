"""The inverse of a curvature by its outer products, one at a time: Optimal Brain Surgeon's recursion."""

from __future__ import annotations

import numpy as np

from solvers.hessian import Array


def inverse_by_outer_products(X: Array, alpha: float) -> Array:
    """`(alpha I + 1/P sum_s x_s x_s')^-1 [n, n]`, a row `x_s` of `X [P, n]` at a time.

    From `C_0 = I / alpha` every row takes one rank-one update, by Sherman and Morrison's formula, O(n^2):

        C_s = C_{s-1} - C_{s-1} x_s x_s' C_{s-1} / (P + x_s' C_{s-1} x_s)

    (Hassibi & Stork 1992, equation 16, where alpha is 1e-8 to 1e-4.) `cbs.GaussNewton` has as alpha its
    absolute damping, `damping` times the mean diagonal, and as rows those of
    `cbs.curvature.gauss_newton.gauss_newton_factor`. Where all rows are at hand, the solvers factorise their
    matrix at once, which is the same work in larger pieces, or never form it (Woodbury's identity); this form
    serves where rows come in one by one, and to hold the two against.

    Args:
        X: rows; gradients of the outputs for the squared error, scaled by the root of `d2E/do2` for others.
        alpha: positive.

    Raises:
        ValueError: if `X` is not a matrix of finite numbers with a row or more, or alpha is not positive.
    """
    X = np.asarray(X, dtype=float)
    if X.ndim != 2 or not len(X) or not np.isfinite(X).all():
        raise ValueError(
            f"X must be a matrix [P, n] of finite numbers with a row or more, got shape {X.shape}"
        )
    if not 0 < alpha < np.inf:
        raise ValueError(f"alpha must be positive and finite, got {alpha!r}")
    C = np.eye(X.shape[1]) / alpha
    for x in X:
        pull = C @ x
        C -= np.outer(pull, pull / (len(X) + x @ pull))
    return C
