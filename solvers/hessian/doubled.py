"""Products in doubled precision, compiled: sums of products without error (Ogita, Rump & Oishi 2005).

Numbers are unevaluated sums of two doubles, a head and a tail. No flag may let the compiler reorder them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.runtime.compiled import njit

Array = NDArray[np.float64]

SPLITTER = 134217729.0
"""`2^27 + 1`, which splits a double into two halves (Dekker 1971)."""


@njit(cache=True, nogil=True)
def _accumulate(head, tail, a, x, y):  # type: ignore[no-untyped-def]
    """`(head, tail)` plus `a (x + y)`."""
    product = a * x
    big = SPLITTER * a
    a_high = big - (big - a)
    a_low = a - a_high
    big = SPLITTER * x
    x_high = big - (big - x)
    x_low = x - x_high
    error = ((a_high * x_high - product) + a_high * x_low + a_low * x_high) + a_low * x_low
    total = head + product
    other = total - head
    lost = (head - (total - other)) + (product - other)
    return total, tail + (lost + (error + a * y))


@njit(cache=True, nogil=True)
def _normal(head, tail):  # type: ignore[no-untyped-def]
    total = head + tail
    return total, tail - (total - head)


@njit(cache=True, nogil=True)
def multiply(A, x, y):  # type: ignore[no-untyped-def]
    """`A (x + y)` as heads and tails, for `A [N, n]`, heads x and tails y."""
    rows = len(A)
    heads, tails = np.zeros(rows), np.zeros(rows)
    for i in range(rows):
        head, tail = 0.0, 0.0
        for j in range(len(x)):
            if x[j] != 0.0:
                head, tail = _accumulate(head, tail, np.float64(A[i, j]), x[j], y[j])
        heads[i], tails[i] = _normal(head, tail)
    return heads, tails


@njit(cache=True, nogil=True)
def remainder(B, A, X, Y):  # type: ignore[no-untyped-def]
    """`b - A (x + y)`, each rounded once, for all rows b of `B [k, N]`, heads x and tails y `[k, n]`."""
    out = np.empty(B.shape)
    for r in range(len(B)):
        for i in range(len(A)):
            head, tail = B[r, i], 0.0
            for j in range(A.shape[1]):
                if X[r, j] != 0.0:
                    head, tail = _accumulate(head, tail, -A[i, j], X[r, j], Y[r, j])
            out[r, i] = head + tail
    return out


@njit(cache=True, nogil=True)
def pull_back(A, x, y):  # type: ignore[no-untyped-def]
    """`A' (x + y)` as heads and tails, for `A [N, n]`, heads x and tails y."""
    columns = A.shape[1]
    heads, tails = np.zeros(columns), np.zeros(columns)
    for i in range(len(x)):
        for j in range(columns):
            heads[j], tails[j] = _accumulate(heads[j], tails[j], np.float64(A[i, j]), x[i], y[i])
    for j in range(columns):
        heads[j], tails[j] = _normal(heads[j], tails[j])
    return heads, tails


@njit(cache=True, nogil=True)
def add_product(heads, tails, a, x):  # type: ignore[no-untyped-def]
    """`heads + tails + a x`, for a number a and `x [n]`."""
    out_heads, out_tails = np.empty(len(x)), np.empty(len(x))
    for i in range(len(x)):
        head, tail = _accumulate(heads[i], tails[i], a, x[i], 0.0)
        out_heads[i], out_tails[i] = _normal(head, tail)
    return out_heads, out_tails


@njit(cache=True, nogil=True)
def dot(x, heads, tails):  # type: ignore[no-untyped-def]
    """`x . (heads + tails)` to double precision, whatever cancels."""
    head, tail = 0.0, 0.0
    for i in range(len(x)):
        head, tail = _accumulate(head, tail, x[i], heads[i], tails[i])
    return head + tail


def divide(number: tuple[Array, Array], by: float) -> tuple[Array, Array]:
    """Heads and tails of `(heads + tails) / by`, to doubled precision."""
    heads, tails = number
    quotient = heads / by
    rest_heads, rest_tails = add_product(heads, tails, -by, quotient)
    return quotient, (rest_heads + rest_tails) / by
