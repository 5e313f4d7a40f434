"""The best masks of one row found so far, best first, compiled."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def insert(masks, values, mask, value):  # type: ignore[no-untyped-def]
    """Take a mask in, in order of values, if it is new and better than the worst.

    Args:
        masks: `[elites, n]` bool.
        values: `[elites]` rising; infinite where there is no mask yet.
        mask: `[n]` bool.
        value: what it costs.
    """
    size = len(values)
    if value >= values[size - 1]:
        return
    for e in range(size):
        if values[e] < np.inf and not (masks[e] != mask).any():
            return
    e = size - 1
    while e > 0 and values[e - 1] > value:
        values[e] = values[e - 1]
        masks[e] = masks[e - 1]
        e -= 1
    values[e] = value
    masks[e] = mask
