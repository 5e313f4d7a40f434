"""Cholesky factors of small matrices, compiled: solves, inverses, and the sums of pools seen through them.

A factor L is lower triangular with the reciprocals of its diagonal in their place; what is above is
left alone.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from solvers.runtime.compiled import FLAGS


@njit(cache=True, nogil=True, fastmath=FLAGS)
def factorise(A, n, least=0.0):
    """Factor the leading `[n, n]` of A in place; whether it is positive definite.

    Pivots less than the share `least` of their diagonal entry are raised to it.
    """
    for i in range(n):
        floor = least * A[i, i]
        for j in range(i):
            total = A[i, j]
            for k in range(j):
                total -= A[i, k] * A[j, k]
            A[i, j] = total * A[j, j]
        total = A[i, i]
        for k in range(i):
            total -= A[i, k] * A[i, k]
        if total < floor:
            total = floor
        if not total > 0.0:
            return False
        A[i, i] = 1.0 / np.sqrt(total)
    return True


@njit(cache=True, nogil=True, fastmath=FLAGS)
def factorise_shifted(A, shift, work):
    """Factor `A - diag(shift)` into work; whether it is positive definite."""
    n = len(shift)
    for i in range(n):
        for j in range(i):
            work[i, j] = A[i, j]
        work[i, i] = A[i, i] - shift[i]
    return factorise(work, n)


@njit(cache=True, nogil=True, fastmath=FLAGS)
def forward(L, x, a):
    """`x <- L^-1 x` on the leading a entries."""
    for i in range(a):
        total = x[i]
        for k in range(i):
            total -= L[i, k] * x[k]
        x[i] = total * L[i, i]


@njit(cache=True, nogil=True, fastmath=FLAGS)
def backward(L, x, a):
    """`x <- L'^-1 x` on the leading a entries."""
    for i in range(a - 1, -1, -1):
        x[i] *= L[i, i]
        xi = x[i]
        for k in range(i):
            x[k] -= L[i, k] * xi


@njit(cache=True, nogil=True, fastmath=FLAGS)
def forward_rows(L, C, a):
    """`C <- L^-1 C` of a matrix of a rows."""
    columns = C.shape[1]
    for i in range(a):
        for k in range(i):
            x = L[i, k]
            for j in range(columns):
                C[i, j] -= x * C[k, j]
        for j in range(columns):
            C[i, j] *= L[i, i]


@njit(cache=True, nogil=True, fastmath=FLAGS)
def half_inverse(L, n):
    """`L^-1`, with zeros above its diagonal."""
    half = np.zeros((n, n))
    for i in range(n):
        for k in range(i):
            x = L[i, k]
            for j in range(k + 1):
                half[i, j] -= x * half[k, j]
        half[i, i] = 1.0
        for j in range(i + 1):
            half[i, j] *= L[i, i]
    return half


@njit(cache=True, nogil=True, fastmath=FLAGS)
def inverse(L, n):
    """`(L L')^-1`."""
    half = half_inverse(L, n)
    out = np.zeros((n, n))
    for k in range(n):
        for i in range(k + 1):
            x = half[k, i]
            for j in range(i + 1):
                out[i, j] += x * half[k, j]
    for i in range(n):
        for j in range(i):
            out[j, i] = out[i, j]
    return out


@njit(cache=True, nogil=True)
def pool_basis(L, labels, lack):
    """`[pools, a]` orthonormal rows V that span `L^-1 E'`, E the membership in the pools of `labels`.

    A move `x = L'^-1 y` changes the pools' sums by `E x`; it is `lack` if `V y` is what lack becomes.

    Args:
        L: factor of a entries.
        labels: `[a]` pool of every entry, those of a pool side by side.
        lack: `[pools]` sums to reach, changed in place; pools are counted as they come.
    """
    a, pools = len(labels), len(lack)
    V = np.zeros((pools, a))
    t = 0
    for i in range(a):
        t += i > 0 and labels[i] != labels[i - 1]
        V[t, i] = 1.0
    for t in range(pools):
        forward(L, V[t], a)
        for u in range(t):
            dot = 0.0
            for i in range(a):
                dot += V[t, i] * V[u, i]
            for i in range(a):
                V[t, i] -= dot * V[u, i]
            lack[t] -= dot * lack[u]
        norm = 0.0
        for i in range(a):
            norm += V[t, i] * V[t, i]
        norm = 1.0 / np.sqrt(max(norm, 1e-300))
        lack[t] *= norm
        for i in range(a):
            V[t, i] *= norm
    return V


@njit(cache=True, nogil=True)
def count_pools(labels):
    """How many pools there are among labels of which those of a pool are side by side."""
    pools = 1
    for i in range(1, len(labels)):
        pools += labels[i] != labels[i - 1]
    return pools


@njit(cache=True, nogil=True, fastmath=FLAGS)
def project(V, y):
    """`y <- (I - V'V) y`."""
    for t in range(len(V)):
        dot = 0.0
        for i in range(len(y)):
            dot += V[t, i] * y[i]
        for i in range(len(y)):
            y[i] -= dot * V[t, i]


@njit(cache=True, nogil=True, fastmath=FLAGS)
def project_rows(V, C):
    """`C <- (I - V'V) C`."""
    rows, columns = C.shape
    lean = np.empty(columns)
    for t in range(len(V)):
        lean[:] = 0.0
        for i in range(rows):
            for j in range(columns):
                lean[j] += V[t, i] * C[i, j]
        for i in range(rows):
            for j in range(columns):
                C[i, j] -= V[t, i] * lean[j]
