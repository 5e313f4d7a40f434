"""A proof that a symmetric matrix is positive semidefinite, from a factor that need not be exact."""

from __future__ import annotations

import numpy as np

from solvers.checker.rounding import SAFE, UNIT, Array, product, up

SHIFTS = 2.0 ** np.arange(1, -16, -2)
"""Shifts tried, in units of `(n + 4) trace UNIT`, above what a row of `error` asks for."""


def semidefinite(A: Array, error: Array) -> str | None:
    """Show that every symmetric matrix within `error` of A `[n, n]` is positive semidefinite.

    For any L whatsoever, `A = L L' + F`, and `L L' >= 0`; if F is diagonally dominant with a diagonal that
    is not negative, then `F >= 0` by Gershgorin, and so is A. L is the Cholesky factor of A less a shift of
    its diagonal, by what each row of `error` asks for and a little more, in floating point; F is computed
    from an exact product. A is first scaled from both sides by powers of
    two, which changes neither exactness nor definiteness.

    Returns:
        None if it is shown, else what was found instead.
    """
    diagonal = np.abs(np.diagonal(A))
    size = np.where(diagonal > 0, diagonal, 1.0)
    power = -np.rint(0.5 * np.log2(size)).astype(np.int32)
    powers = power[:, None] + power[None, :]
    A, error = np.ldexp(A, powers), up(np.ldexp(error, powers))
    unit = (len(A) + 4) * UNIT * float(np.trace(np.abs(A)))
    diagonal_index = np.diag_indices(len(A))
    least = 1.01 * error.sum(axis=1)
    for shift in SHIFTS * unit:
        B = A.copy()
        B[diagonal_index] -= least + shift
        try:
            L = np.linalg.cholesky(B).astype(np.float64)
        except np.linalg.LinAlgError:
            continue
        P, slack = product(L, L.T)
        F = A - P
        slack = SAFE * (slack + error + UNIT * np.abs(F)) + 2.0**-1000
        size = np.abs(F) + slack
        lowest = F[diagonal_index] - slack[diagonal_index]
        size[diagonal_index] = 0.0
        if (lowest >= up(SAFE * size.sum(axis=1))).all():
            return None
    low = float(np.linalg.eigvalsh(A)[0]) if np.isfinite(A).all() else np.nan
    return f"its smallest eigenvalue, scaled to a diagonal of ones, is {low:.3g}"
