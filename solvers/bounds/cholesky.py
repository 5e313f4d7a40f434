"""Cholesky factors of small matrices, compiled: solves, inverses, and the sums of pools seen through them.

A factor L is lower triangular with the reciprocals of its diagonal in their place; what is above is
left alone.
"""

from __future__ import annotations

import numpy as np

from solvers.bounds import stand_ins
from solvers.runtime.compiled import FLAGS, njit


@njit(cache=True, nogil=True, fastmath=FLAGS, stand_in=stand_ins.factorise)
def factorise(A, n, least=0.0):
    """Factor the leading `[n, n]` of A in place; whether it is positive definite.

    Pivots less than the share `least` of their diagonal entry are raised to it.
    """
    floor = np.empty(n)
    for i in range(n):
        floor[i] = least * A[i, i]
    panel = np.empty((4, n))
    p0, p1, p2, p3 = panel
    first = 0
    while n - first >= 8:
        rest = first + 4
        if not _corner(A, first, rest, floor):
            return False
        c0, c1, c2, c3 = A[first], A[first + 1], A[first + 2], A[first + 3]
        for i in range(rest, n):
            row = A[i]
            x0 = row[first] * c0[first]
            x1 = (row[first + 1] - x0 * c1[first]) * c1[first + 1]
            x2 = (row[first + 2] - x0 * c2[first] - x1 * c2[first + 1]) * c2[first + 2]
            x3 = row[first + 3] - x0 * c3[first] - x1 * c3[first + 1] - x2 * c3[first + 2]
            x3 *= c3[first + 3]
            row[first], row[first + 1], row[first + 2], row[first + 3] = x0, x1, x2, x3
            p0[i], p1[i], p2[i], p3[i] = x0, x1, x2, x3
        for i in range(rest + (n - rest) % 2, n, 2):
            row, low = A[i], A[i + 1]
            x0, x1, x2, x3 = p0[i], p1[i], p2[i], p3[i]
            y0, y1, y2, y3 = p0[i + 1], p1[i + 1], p2[i + 1], p3[i + 1]
            for j in range(rest, i + 1):
                a0, a1, a2, a3 = p0[j], p1[j], p2[j], p3[j]
                row[j] -= x0 * a0 + x1 * a1 + x2 * a2 + x3 * a3
                low[j] -= y0 * a0 + y1 * a1 + y2 * a2 + y3 * a3
            low[i + 1] -= y0 * y0 + y1 * y1 + y2 * y2 + y3 * y3
        if (n - rest) % 2:
            A[rest, rest] -= p0[rest] ** 2 + p1[rest] ** 2 + p2[rest] ** 2 + p3[rest] ** 2
        first = rest
    return _corner(A, first, n, floor)


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _corner(A, first, last, floor):
    """Factor the entries first to last of A, what is before them taken out; see `factorise`."""
    for i in range(first, last):
        for j in range(first, i):
            total = A[i, j]
            for k in range(first, j):
                total -= A[i, k] * A[j, k]
            A[i, j] = total * A[j, j]
        total = A[i, i]
        for k in range(first, i):
            total -= A[i, k] * A[i, k]
        if total < floor[i]:
            total = floor[i]
        if not total > 0.0:
            return False
        A[i, i] = 1.0 / np.sqrt(total)
    return True


@njit(cache=True, nogil=True, fastmath=FLAGS, stand_in=stand_ins.factorise_shifted)
def factorise_shifted(A, shift, work):
    """Factor `A - diag(shift)` into work; whether it is positive definite."""
    n = len(shift)
    for i in range(n):
        for j in range(i):
            work[i, j] = A[i, j]
        work[i, i] = A[i, i] - shift[i]
    return factorise(work, n)


@njit(cache=True, nogil=True, fastmath=FLAGS, stand_in=stand_ins.forward)
def forward(L, x, a):
    """`x <- L^-1 x` on the leading a entries."""
    i = 0
    while i + 4 <= a:
        r0, r1, r2, r3 = L[i], L[i + 1], L[i + 2], L[i + 3]
        t0, t1, t2, t3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        for k in range(i):
            xk = x[k]
            t0 -= r0[k] * xk
            t1 -= r1[k] * xk
            t2 -= r2[k] * xk
            t3 -= r3[k] * xk
        t0 *= r0[i]
        t1 = (t1 - r1[i] * t0) * r1[i + 1]
        t2 = (t2 - r2[i] * t0 - r2[i + 1] * t1) * r2[i + 2]
        t3 = (t3 - r3[i] * t0 - r3[i + 1] * t1 - r3[i + 2] * t2) * r3[i + 3]
        x[i], x[i + 1], x[i + 2], x[i + 3] = t0, t1, t2, t3
        i += 4
    while i < a:
        total = x[i]
        for k in range(i):
            total -= L[i, k] * x[k]
        x[i] = total * L[i, i]
        i += 1


@njit(cache=True, nogil=True, fastmath=FLAGS, stand_in=stand_ins.backward)
def backward(L, x, a):
    """`x <- L'^-1 x` on the leading a entries."""
    i = a
    while i >= 4:
        i -= 4
        r0, r1, r2, r3 = L[i], L[i + 1], L[i + 2], L[i + 3]
        x3 = x[i + 3] * r3[i + 3]
        x2 = (x[i + 2] - r3[i + 2] * x3) * r2[i + 2]
        x1 = (x[i + 1] - r3[i + 1] * x3 - r2[i + 1] * x2) * r1[i + 1]
        x0 = (x[i] - r3[i] * x3 - r2[i] * x2 - r1[i] * x1) * r0[i]
        x[i], x[i + 1], x[i + 2], x[i + 3] = x0, x1, x2, x3
        for k in range(i):
            x[k] -= r0[k] * x0 + r1[k] * x1 + r2[k] * x2 + r3[k] * x3
    while i > 0:
        i -= 1
        x[i] *= L[i, i]
        xi = x[i]
        for k in range(i):
            x[k] -= L[i, k] * xi


@njit(cache=True, nogil=True, fastmath=FLAGS, stand_in=stand_ins.forward_rows)
def forward_rows(L, C, a):
    """`C <- L^-1 C` of a matrix of a rows."""
    columns = C.shape[1]
    for i in range(a):
        row, k = C[i], 0
        while k + 4 <= i:
            x0, x1, x2, x3 = L[i, k], L[i, k + 1], L[i, k + 2], L[i, k + 3]
            c0, c1, c2, c3 = C[k], C[k + 1], C[k + 2], C[k + 3]
            for j in range(columns):
                row[j] -= x0 * c0[j] + x1 * c1[j] + x2 * c2[j] + x3 * c3[j]
            k += 4
        while k < i:
            x, c = L[i, k], C[k]
            for j in range(columns):
                row[j] -= x * c[j]
            k += 1
        x = L[i, i]
        for j in range(columns):
            row[j] *= x


@njit(cache=True, nogil=True, fastmath=FLAGS, stand_in=stand_ins.half_inverse)
def half_inverse(L, n):
    """`L^-1`, with zeros above its diagonal."""
    half = np.zeros((n, n))
    for i in range(n):
        row, k = half[i], 0
        while k + 4 <= i:
            x0, x1, x2, x3 = L[i, k], L[i, k + 1], L[i, k + 2], L[i, k + 3]
            c0, c1, c2, c3 = half[k], half[k + 1], half[k + 2], half[k + 3]
            for j in range(k + 4):
                row[j] -= x0 * c0[j] + x1 * c1[j] + x2 * c2[j] + x3 * c3[j]
            k += 4
        while k < i:
            x, c = L[i, k], half[k]
            for j in range(k + 1):
                row[j] -= x * c[j]
            k += 1
        x = L[i, i]
        for j in range(i):
            row[j] *= x
        row[i] = x
    return half


@njit(cache=True, nogil=True, fastmath=FLAGS, stand_in=stand_ins.inverse)
def inverse(L, n):
    """`(L L')^-1`."""
    out = np.zeros((n, n))
    add_gram(half_inverse(L, n), n, True, out)
    for i in range(n):
        for j in range(i):
            out[j, i] = out[i, j]
    return out


@njit(cache=True, nogil=True, fastmath=FLAGS)
def add_gram(C, rows, lower, out):
    """`out <- out + C'C`, its lower triangle, of leading rows.

    Args:
        C: `[>= rows, n]`.
        rows: of C that count.
        lower: whether C is lower triangular, with zeros above its diagonal.
        out: `[>= n, >= n]`; what is above its diagonal is left undefined.
    """
    n, k = C.shape[1], 0
    while k + 4 <= rows:
        c0, c1, c2, c3 = C[k], C[k + 1], C[k + 2], C[k + 3]
        stop = k + 4 if lower else n
        for i in range(stop % 2, stop, 2):
            row, low = out[i], out[i + 1]
            x0, x1, x2, x3 = c0[i], c1[i], c2[i], c3[i]
            y0, y1, y2, y3 = c0[i + 1], c1[i + 1], c2[i + 1], c3[i + 1]
            for j in range(i + 2):
                a0, a1, a2, a3 = c0[j], c1[j], c2[j], c3[j]
                row[j] += x0 * a0 + x1 * a1 + x2 * a2 + x3 * a3
                low[j] += y0 * a0 + y1 * a1 + y2 * a2 + y3 * a3
        if stop % 2:
            out[0, 0] += c0[0] * c0[0] + c1[0] * c1[0] + c2[0] * c2[0] + c3[0] * c3[0]
        k += 4
    while k < rows:
        c = C[k]
        for i in range(k + 1 if lower else n):
            row, x = out[i], c[i]
            for j in range(i + 1):
                row[j] += x * c[j]
        k += 1


@njit(cache=True, nogil=True, stand_in=stand_ins.pool_basis)
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


@njit(cache=True, nogil=True, fastmath=FLAGS, stand_in=stand_ins.project_rows)
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
