"""What a node decides without branching: reduced-cost fixing, dominance, full pools and a rounded point.

A node's fixings are `fix [n]`: 1 kept, -1 pruned, 0 free. Pools are runs of equal `labels [n]`, and
`need [pools]` is how many of its free entries each still has to keep.
"""

from __future__ import annotations

import numpy as np

from solvers.runtime.compiled import njit


@njit(cache=True, nogil=True)
def fix_by_scores(s, bound, cutoff, fix, labels, need):
    """Fix free entries whose other choice would lift the bound past the cutoff; the least bound of these.

    Reduced-cost fixing, with scores for reduced costs. With a pool's scores sorted, fixing entry i the other
    way changes LB(u) by its distance to the threshold: `s_i - outer` to prune one that is taken,
    `inner - s_i` to keep one that is not.
    """
    n, least, start = len(s), np.inf, 0
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
                taken = k >= count - take
                other = bound + (s[i] - outer if taken else inner - s[i])
                if other >= cutoff:
                    least = min(least, other)
                    fix[i] = 1 if taken else -1
                    need[p] -= taken
        start = stop
    return least


@njit(cache=True, nogil=True)
def follow(fix, chains):
    """Dominance: fix what chains of interchangeable entries demand; whether they can be met.

    Along a chain kept entries come first: where one is kept, so are all before it, and where one is
    pruned, so are all after it. See `solvers.exact.tree.symmetry` for why some best mask is
    like that.

    Args:
        fix: `[n]` fixings, changed in place.
        chains: entries in their order, -1 after each chain.
    """
    start = 0
    for stop in range(len(chains)):
        if chains[stop] >= 0:
            continue
        last, first = start - 1, stop
        for k in range(start, stop):
            if fix[chains[k]] > 0:
                last = k
            elif fix[chains[k]] < 0 and first == stop:
                first = k
        if first < last:
            return False
        for k in range(start, stop):
            if k <= last:
                fix[chains[k]] = 1
            elif k >= first:
                fix[chains[k]] = -1
        start = stop + 1
    return True


@njit(cache=True, nogil=True)
def possible(fix, labels, need):
    """Whether the fixings leave every pool what it still has to keep."""
    start = 0
    for p in range(len(need)):
        stop, free = start, 0
        while stop < len(fix) and labels[stop] == p:
            free += fix[stop] == 0
            stop += 1
        if not 0 <= need[p] <= free:
            return False
        start = stop
    return True


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
