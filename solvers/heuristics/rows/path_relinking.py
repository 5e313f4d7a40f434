"""From one mask of a row towards another by the best swaps (path relinking, Glover 1996), compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

from solvers.heuristics.rows.swaps import best_swap
from solvers.heuristics.rows.tableau import prune, refresh, restore


@njit(cache=True, nogil=True)
def relink(row, target):  # type: ignore[no-untyped-def]
    """Walk to another mask by the best swaps that lead there, and go back to the best mask between.

    Args:
        row: the state.
        target: `[n]` bool, with as many pruned entries in every pool.
    """
    best = row.pruned.copy()
    distance = (row.pruned != target).sum() // 2
    lowest = np.inf
    for _ in range(1, distance):
        _, come, go = best_swap(row, row.pruned == target, -np.inf)
        restore(row, come)
        prune(row, go)
        if row.cost[0] < lowest:
            lowest = row.cost[0]
            best[:] = row.pruned
    row.pruned[:] = best
    refresh(row)
