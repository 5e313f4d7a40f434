"""What a node's relaxation decides without branching: fixings, leaves and a rounded point."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def fix_by_scores(s, bound, cutoff, fix, labels, need):
    """Fix free entries whose other choice would lift the bound past the cutoff; how many.

    With a pool's scores sorted, fixing entry i the other way changes LB(u) by its distance to the
    threshold: `s_i - outer` to prune one that is taken, `inner - s_i` to keep one that is not.
    """
    n, fixed, start = len(s), 0, 0
    for p in range(len(need)):
        stop = start
        while stop < n and labels[stop] == p:
            stop += 1
        free = np.flatnonzero(fix[start:stop] == 0) + start
        take = need[p]
        count = len(free)
        if 0 < take < count:
            order = free[np.argsort(s[free])]
            inner, outer = s[order[count - take]], s[order[count - take - 1]]
            for k in range(count):
                i = order[k]
                if k >= count - take:
                    if bound + s[i] - outer >= cutoff:
                        fix[i] = 1
                        need[p] -= 1
                        fixed += 1
                elif bound + inner - s[i] >= cutoff:
                    fix[i] = -1
                    fixed += 1
        start = stop
    return fixed


@njit(cache=True, nogil=True)
def settle(fix, labels, need):
    """Fix what a full or empty pool leaves no choice about; the number of entries still free."""
    n, open_entries, start = len(fix), 0, 0
    for p in range(len(need)):
        stop, free = start, 0
        while stop < n and labels[stop] == p:
            if fix[stop] == 0:
                free += 1
            stop += 1
        if need[p] == 0 or need[p] == free:
            side = -1 if need[p] == 0 else 1
            for i in range(start, stop):
                if fix[i] == 0:
                    fix[i] = side
            need[p] = 0
        else:
            open_entries += free
        start = stop
    return open_entries


@njit(cache=True, nogil=True)
def round_shares(z, labels, keep, out):
    """The binary point that keeps each pool's largest shares."""
    n, start = len(z), 0
    for p in range(len(keep)):
        stop = start
        while stop < n and labels[stop] == p:
            stop += 1
        order = np.argsort(-z[start:stop], kind="mergesort")
        for k in range(stop - start):
            out[start + order[k]] = 1.0 if k < keep[p] else 0.0
        start = stop
