"""Shares of a budget: the best indicators for given scores, smoothed, pool by pool."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.hessian import Array

STEPS = 200
"""Steps of the search for the thresholds at most."""
EXACT = 1e-14
"""Relative error of a pool's sum of shares that is taken for rounding."""


def smoothed_shares(scores: Array, labels: NDArray[np.int64], take: NDArray[np.int64], width: float) -> Array:
    """`argmax z.s - width/2 |z|^2` over `0 <= z <= 1`, `sum z = take` in every pool.

    That is `z_i = clip((s_i - t) / width, 0, 1)`, with a threshold t for each pool, found by Newton's method.
    As width falls, the z of a pool's `take` largest scores go to one and the others to zero.

    Args:
        scores: `[n]`.
        labels: `[n]` pool of every entry, counted from 0.
        take: `[pools]` entries to take.
        width: positive.
    """
    low = np.full(len(take), np.inf)
    np.minimum.at(low, labels, scores)
    high = np.full(len(take), -np.inf)
    np.maximum.at(high, labels, scores)
    return np.asarray(
        _shares(scores, labels, take.astype(np.float64), width, low - width, high), dtype=np.float64
    )


@njit(cache=True, nogil=True)
def _shares(scores, labels, take, width, low, high):  # type: ignore[no-untyped-def]
    """Newton's steps on the thresholds, halved where they leave their bracket: exact once no pool moves."""
    n, pools = len(scores), len(take)
    at = 0.5 * (low + high)
    total, free = np.empty(pools), np.empty(pools)
    for _ in range(STEPS):
        total[:], free[:] = 0.0, 0.0
        for i in range(n):
            p = labels[i]
            z = (scores[i] - at[p]) / width
            if z >= 1.0:
                total[p] += 1.0
            elif z > 0.0:
                total[p] += z
                free[p] += 1.0
        moving = False
        for p in range(pools):
            excess = total[p] - take[p]
            if excess > 0.0:
                low[p] = at[p]
            else:
                high[p] = at[p]
            if abs(excess) <= EXACT * take[p]:
                continue
            to = at[p] + width * excess / free[p] if free[p] else high[p]
            if not low[p] < to < high[p]:
                to = 0.5 * (low[p] + high[p])
            moving = moving or low[p] < to < high[p]
            at[p] = to
        if not moving:
            break
    z = np.empty(n)
    for i in range(n):
        z[i] = min(max((scores[i] - at[labels[i]]) / width, 0.0), 1.0)
    return z
