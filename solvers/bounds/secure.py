"""What holds beyond rounding: matrices and splits that are positive semidefinite for certain."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import scipy.linalg

from solvers.hessian import Array

EPS = float(np.finfo(np.float64).eps)
EXACT = 12
"""Entries up to which a singular matrix is judged in rational numbers."""


def secure(H: Array, d: Array, positive: bool) -> Array:
    """Shrink d until `H - diag(d)` is positive semidefinite for certain, rounding included.

    By Rump (2006): if the floating-point Cholesky factorisation of `A - c I` succeeds with
    `c >= (n + 2) eps tr(A)` (and the rounding of the diagonal), then A is positive semidefinite. A is
    `H - diag(d)` scaled from both sides by powers of two, which is exact, to a diagonal of order one.

    Raises:
        ValueError: if H itself is too close to singular to say so.
    """
    A, e, margin, scale = _scaled(H, d)
    shrink = 0.0
    for attempt in range(60):
        trial = e * (1.0 - shrink) if positive else e - shrink * margin
        if _factors(A, trial + margin) and (not positive or (trial > 0).all()):
            return np.asarray(trial / (scale * scale))
        shrink = (1e-12 if positive else 1.0) * 2.0**attempt
        if positive and shrink >= 1.0:
            break
    raise ValueError("hessian is too close to singular for a certified split; add damping")


def certainly_semidefinite(H: Array) -> bool:
    """Whether a symmetric matrix is shown to be positive semidefinite, by `secure`'s argument.

    Rows of zeros are left out. Small matrices that are singular, or nearly, are factored exactly.
    """
    used = H.any(axis=0)
    if not used.any():
        return True
    H = H[np.ix_(used, used)]
    A, e, margin, _ = _scaled(H, np.zeros(len(H)))
    return _factors(A, e + margin) or (len(H) <= EXACT and _exactly_semidefinite(H))


def _scaled(H: Array, d: Array) -> tuple[Array, Array, float, Array]:
    """`H` and d scaled by powers of two to order one, the margin of a proof there, and the scales."""
    size = np.maximum(np.abs(np.diagonal(H)), np.abs(d))
    scale = np.exp2(-np.round(0.5 * np.log2(np.where(size > 1e-280, size, 1.0))))
    A, e = scale[:, None] * H * scale[None, :], scale * scale * d
    return A, e, 2.0 * (len(H) + 4) * EPS * float(np.trace(A) + np.abs(e).sum()) + 1e-300, scale


def _factors(A: Array, d: Array) -> bool:
    """Whether `A - diag(d)` has a Cholesky factor in floating point."""
    _, info = scipy.linalg.lapack.dpotrf(A - np.diag(d), lower=1)
    return bool(info == 0)


def _exactly_semidefinite(H: Array) -> bool:
    """By symmetric elimination in rational numbers, largest pivots first."""
    A = [[Fraction(x) for x in row] for row in H.tolist()]
    while A:
        k = max(range(len(A)), key=lambda i: A[i][i])
        if (pivot := A[k][k]) <= 0:
            return not any(x for row in A for x in row)
        rest = [i for i in range(len(A)) if i != k]
        A = [[A[i][j] - A[i][k] * A[k][j] / pivot for j in rest] for i in rest]
    return True
