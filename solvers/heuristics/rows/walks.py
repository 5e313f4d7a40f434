"""What a round of tabu search in one row is made of, compiled.

A tabu walk makes swaps that need not gain, and undoes none for a while (Glover 1989). Walks start from a mask
that is shaken, or that lies on the path from one of the best masks so far (elites) to another (path
relinking, Glover 1996).
"""

from __future__ import annotations

import numpy as np

from solvers.heuristics.rows.swaps import best_swap
from solvers.heuristics.rows.tableau import prune, refresh, restore
from solvers.runtime.compiled import njit

FRESH = 100
"""Swaps between two fresh tableaux."""
GAIN = 1e-9
"""Smallest relative gain that makes a mask better."""
TENURE = 10
"""An entry rests for one to two times a quarter of the choices, or this, whichever is less."""


@njit(cache=True, nogil=True)
def tabu_walk(row, best, patience, rng):  # type: ignore[no-untyped-def]
    """Swap until `patience` swaps in a row have found nothing better; `(swaps, value of the best)`.

    The best swap that is not tabu is made, gain or loss. What came back may not go, and what went may
    not come back, for a random while that depends on how many choices there are; a swap to a new best
    is always allowed.

    Args:
        row: the state, which ends somewhere else.
        best: `[n]` bool, takes the best mask on the way, the first included.
        patience: swaps without a better mask that end the walk.
        rng: random generator.
    """
    n, s = len(row.w), row.size[0]
    until = np.zeros(n, np.int64)
    barred = np.zeros(n, np.bool_)
    come_tenure, go_tenure = max(1, min(s // 4, TENURE)), max(1, min((n - s) // 4, TENURE))
    best[:] = row.pruned
    value = row.cost[0]
    swaps, last = 0, 0
    while swaps - last < patience:
        for k in range(n):
            barred[k] = until[k] > swaps
        gain = GAIN * abs(value)
        _, come, go = best_swap(row, barred, value - gain - row.cost[0])
        if come < 0:
            break
        restore(row, come)
        prune(row, go)
        swaps += 1
        until[come] = swaps + come_tenure + int(rng.random() * (come_tenure + 1))
        until[go] = swaps + go_tenure + int(rng.random() * (go_tenure + 1))
        if swaps % FRESH == 0:
            refresh(row)
        if row.cost[0] < value - gain:
            value, last = row.cost[0], swaps
            best[:] = row.pruned
    return swaps, value


@njit(cache=True, nogil=True)
def shake(row, swaps, rng):  # type: ignore[no-untyped-def]
    """Random swaps within pools."""
    for _ in range(swaps):
        if row.size[0] == 0:
            return
        go = row.kept[int(rng.random() * row.size[0])]
        begin, end = row.first[go], row.last[go]
        start = int(rng.random() * (end - begin))
        for k in range(end - begin):
            come = begin + (start + k) % (end - begin)
            if row.pruned[come]:
                restore(row, come)
                prune(row, go)
                break


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
