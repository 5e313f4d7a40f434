"""Sums and products of float64 arrays, with bounds on their rounding that are proven, not estimated.

Every bound below rests on IEEE 754 alone: an operation's result is the exact one rounded to nearest, off by
at most `UNIT` of it, or by at most `TINY` where it underflows; a sum never underflows. No order of summation
is assumed. An overflow gives an infinity or a NaN, and fails every comparison that a proof asks for.

Bounds are themselves computed in floating point, from non-negative numbers, in fewer than 2^22 operations:
they are off by a factor of less than `1 + 2^-30`, and `SAFE` makes up for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

UNIT = 2.0**-53
TINY = 2.0**-1074
SAFE = 1.0 + 2.0**-30
BITS = 66
"""Bits of an entry that a product keeps, counted from the largest entry of its row or column."""


def up(x: Any) -> Any:
    """The next float: at least the exact result of the operation that gave x."""
    return np.nextafter(x, np.inf)


def down(x: Any) -> Any:
    """The float before: at most the exact result of the operation that gave x."""
    return np.nextafter(x, -np.inf)


def sum_error(count: int, size: Any) -> Any:
    """What a sum of `count` products may be off by, in any order; `size` sums their absolute values.

    `(count - 1)` additions and a product each: at most `count UNIT / (1 - count UNIT)` of the sizes, which
    themselves are computed to that share; and `count TINY` (Higham, Accuracy and Stability, section 4.2).
    """
    share = count * UNIT / (1.0 - 2.0 * count * UNIT)
    return up(share * SAFE * SAFE * size + 2.0 * count * TINY)


def dot(x: Array, y: Array, y_error: Array | float, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """`sum x y` over some axes, and how far it may be from the sum for any y within `y_error`."""
    terms = x * y
    count = int(np.prod([terms.shape[a] for a in axes]))
    size = np.abs(terms).sum(axis=axes)
    slack = SAFE * (np.abs(x) * y_error).sum(axis=axes)
    return terms.sum(axis=axes), up(sum_error(count, size) + slack + count * TINY)


def product(A: Array, B: Array) -> tuple[Array, Array]:
    """`A [p, q] @ B [q, r]`, and `[p, r]` how far each entry may be off; q at most 2^22.

    Rows of A and columns of B are scaled by powers of two to entries below 1 and cut into slices of a few
    bits, `A = 2^e sum_k A_k 2^(-k bits)` with integers `|A_k| <= 2^bits`. With `2 bits + log2 q <= 53`
    every product and every partial sum of `A_k B_l` is an integer of at most 2^53: matrix products of slices
    are exact in any order, fused or not. What is left: adding up the products of slices (at most `UNIT` of
    all their sizes an addition), and slices beyond `BITS`.

    Error of leaving out: with K slices, `|tail_k| <= 2^(-k bits) / 2` after k of them, and pairs
    `k + l <= K + 1` taken, `A B - taken = sum_k A_k tail_(K+1-k) + tail_K B` is at most
    `q (K + 1) 2^(-K bits)`. Entries that underflow when scaled down add less than `q 2^-1000`.
    Rows and columns of zeros give exact zeros.
    """
    q = A.shape[1]
    bits = (53 - max(q - 1, 0).bit_length()) // 2
    count = -(-BITS // bits)
    left, left_scale, left_rest = _slices(A, bits, count, 1)
    right, right_scale, right_rest = _slices(B, bits, count, 0)
    pairs = [(i, j) for i in range(len(left)) for j in range(len(right))]
    taken = [(i, j) for i, j in pairs if i + j <= count - 1]
    total, size = np.zeros((len(A), B.shape[1])), np.zeros((len(A), B.shape[1]))
    for i, j in sorted(taken, key=sum, reverse=True):
        part = (left[i] @ right[j]) * 2.0 ** (-bits * (i + j + 2))
        total += part
        size += np.abs(part)
    error = (len(taken) * UNIT * SAFE) * size + q * 2.0**-1000
    if left_rest or right_rest or len(taken) < len(pairs):
        error += q * (count + 1) * 2.0 ** (-count * bits)
    scale = left_scale + right_scale
    error = up(up(np.ldexp(SAFE * error, scale)) + TINY)
    live = np.any(A, axis=1, keepdims=True) & np.any(B, axis=0, keepdims=True)
    return np.ldexp(total, scale), np.where(live, error, 0.0)


def _slices(A: Array, bits: int, count: int, axis: int) -> tuple[list[Array], NDArray[np.int32], bool]:
    """Integer slices, the exponents taken out of rows (axis 1) or columns (axis 0), whether bits are left."""
    _, scale = np.frexp(np.abs(A).max(axis=axis, keepdims=True, initial=0.0))
    rest = np.ldexp(A, -scale)
    slices: list[Array] = []
    while len(slices) < count and (not slices or rest.any()):
        rest = rest * 2.0**bits
        whole = np.rint(rest)
        rest = rest - whole
        slices.append(whole)
    return slices, scale, bool(rest.any())
