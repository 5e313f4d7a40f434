"""Splits that hold beyond rounding: `H - diag(d)` is positive semidefinite for certain."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from solvers.hessian import Array


def secure(H: Array, d: Array, positive: bool) -> Array:
    """Shrink d until `H - diag(d)` is positive semidefinite for certain, rounding included.

    By Rump (2006): if the floating-point Cholesky factorisation of `A - c I` succeeds with
    `c >= (n + 2) eps tr(A)` (and the rounding of the diagonal), then A is positive semidefinite. A is
    `H - diag(d)` scaled from both sides by powers of two, which is exact, to a diagonal of order one.

    Raises:
        ValueError: if H itself is too close to singular to say so.
    """
    n = len(H)
    size = np.maximum(np.abs(np.diagonal(H)), np.abs(d))
    scale = np.exp2(-np.round(0.5 * np.log2(np.where(size > 1e-280, size, 1.0))))
    A, e = scale[:, None] * H * scale[None, :], scale * scale * d
    margin = 2.0 * (n + 4) * np.finfo(float).eps * float(np.trace(A) + np.abs(e).sum()) + 1e-300
    shrink = 0.0
    for attempt in range(60):
        trial = e * (1.0 - shrink) if positive else e - shrink * margin
        _, info = scipy.linalg.lapack.dpotrf(A - np.diag(trial + margin), lower=1)
        if info == 0 and (not positive or (trial > 0).all()):
            return np.asarray(trial / (scale * scale))
        shrink = (1e-12 if positive else 1.0) * 2.0**attempt
        if positive and shrink >= 1.0:
            break
    raise ValueError("hessian is too close to singular for a certified split; add damping")
