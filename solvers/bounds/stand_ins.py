"""What stands in for compiled functions where Python has to do without (`solvers.runtime.plain`).

Each does what the function of its name does in `solvers.bounds.cholesky` or `solvers.bounds.interior.saddle`,
by LAPACK and whole arrays; they differ in the order of sums alone. A factor L has the reciprocals of its
diagonal in their place, and what is above its diagonal is not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dtrtri, dtrtrs

from solvers.hessian import Array

if TYPE_CHECKING:
    from solvers.bounds.interior.saddle import Data, Derivatives


def factorise(A: Array, n: int, least: float = 0.0) -> bool:
    """See `cholesky.factorise`; pivots below the share `least` are met by a whole share on all diagonals."""
    lead, diagonal = A[:n, :n], np.diagonal(A)[:n].copy()
    L, failed = dpotrf(lead, lower=1)
    while failed and least > 0.0:
        L, failed = dpotrf(lead + np.diag(least * diagonal), lower=1)
        least *= 10.0
    if failed:
        return False
    lead[:] = np.tril(L, -1) + np.triu(lead, 1)
    np.fill_diagonal(lead, 1.0 / np.diagonal(L))
    return True


def factorise_shifted(A: Array, shift: Array, work: Array) -> bool:
    """See `cholesky.factorise_shifted`."""
    n = len(shift)
    work[:n, :n] = A[:n, :n] - np.diag(shift)
    return factorise(work, n)


def forward(L: Array, x: Array, a: int) -> None:
    """See `cholesky.forward`."""
    x[:a] = dtrtrs(_whole(L, a), x[:a], lower=1)[0]


def backward(L: Array, x: Array, a: int) -> None:
    """See `cholesky.backward`."""
    x[:a] = dtrtrs(_whole(L, a), x[:a], lower=1, trans=1)[0]


def forward_rows(L: Array, C: Array, a: int) -> None:
    """See `cholesky.forward_rows`."""
    C[:a] = dtrtrs(_whole(L, a), C[:a], lower=1)[0]


def half_inverse(L: Array, n: int) -> Array:
    """See `cholesky.half_inverse`."""
    half: Array = np.tril(dtrtri(_whole(L, n), lower=1)[0])
    return half


def inverse(L: Array, n: int) -> Array:
    """See `cholesky.inverse`."""
    half = half_inverse(L, n)
    return half.T @ half


def pool_basis(L: Array, labels: NDArray[np.int64], lack: Array) -> Array:
    """See `cholesky.pool_basis`."""
    steps = np.concatenate([[0], np.cumsum(np.diff(labels) != 0)])
    V: Array = (np.arange(len(lack))[:, None] == steps).astype(np.float64)
    for t, row in enumerate(V):
        forward(L, row, len(row))
        for u in range(t):
            dot = row @ V[u]
            row -= dot * V[u]
            lack[t] -= dot * lack[u]
        norm = 1.0 / np.sqrt(max(row @ row, 1e-300))
        lack[t] *= norm
        row *= norm
    return V


def project_rows(V: Array, C: Array) -> None:
    """See `cholesky.project_rows`."""
    for row in V:
        C -= np.outer(row, row @ C)


def joint(data: Data, z: Array, d: Array, out: Derivatives) -> float:
    """See `saddle.joint`."""
    n, y, steep = len(z), 1.0 / z - 1.0, d / (z * z)
    M = data.H + np.diag(d * y)
    factorise(M, n)
    N = inverse(M, n)
    V = N @ data.B
    P = V @ V.T
    Q, own = N * P, np.diagonal(P)
    out.zz[:] = np.diag(own * steep / z) - np.outer(steep, steep) * Q
    out.zd[:] = np.outer(steep, y) * Q - np.diag(0.5 * own / (z * z))
    out.dd[:] = np.outer(y, y) * Q
    out.z[:], out.d[:] = -0.5 * own * steep, 0.5 * own * y
    return float(data.constant - 0.5 * (data.B * V).sum())


def selection(data: Data, z: Array, d: Array, out: Derivatives) -> float:
    """See `saddle.selection`."""
    total, c = data.H @ z, data.B[:, 0]
    out.zz[:] = data.H - np.diag(d)
    out.dd[:] = 0.0
    np.fill_diagonal(out.zd, 0.5 - z)
    out.z[:] = total - c + d * (0.5 - z)
    out.d[:] = 0.5 * z * (1.0 - z)
    return float(z @ (0.5 * total - c) + d @ out.d)


def _whole(L: Array, n: int) -> Array:
    """The factor with its own diagonal, in columns, as LAPACK takes it."""
    whole = np.array(L[:n, :n], order="F")
    whole[np.diag_indices(n)] = 1.0 / np.diagonal(whole)
    return whole
