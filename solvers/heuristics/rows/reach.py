"""What a swap in a selection can gain at most, and the best swap without a look at the others, compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.hessian import Array
from solvers.runtime.compiled import FLAGS, njit

GROUP = 32
"""Entries of a group."""
EPS = float(np.finfo(float).eps)


class Reach(NamedTuple):
    """The entries of a row by the sign of their weight and by size; nothing in it where it isn't used.

    Swapping i in and j out changes a selection by `back_i + front_j - A_ij`, where the first two are what
    the moves cost by themselves and `A_ij = w_i w_j H_ij`. With sizes `|w_i| s_i` and the curvature's
    correlations `H_ij / (s_i s_j)`, A_ij is at most the sizes' product times the lesser of the largest
    correlations that i and j have: positive ones if the weights agree in sign, else negative ones.

    Attributes:
        order: `[n]` the entries; the others follow it.
        size: `[n]` `|w_i| s_i`.
        most: `[2, n]` how large a correlation with another entry can be, positive and negative.
        half: `[n]` `A_ii / 2`.
        edges: `[groups + 1]` where groups begin.
        tops: `[3, groups]` the largest size, and of each row of `most`.
        negative: `[1]` groups of negative weights, which come first.
    """

    order: NDArray[np.int64]
    size: Array
    most: Array
    half: Array
    edges: NDArray[np.int64]
    tops: Array
    negative: NDArray[np.int64]


@njit(cache=True, nogil=True, fastmath=FLAGS)
def correlations(H):  # type: ignore[no-untyped-def]
    """`[3, n]` scales s of a curvature `[n, n]`, and the largest and least `H_ij / (s_i s_j)` for i's others.

    The scales are the roots of the diagonal, where it is not next to nothing; the least is given as how
    far it lies below zero.
    """
    n = len(H)
    found = np.zeros((3, n))
    scale, top = found[0], 0.0
    for i in range(n):
        top = max(top, H[i, i])
    for i in range(n):
        scale[i] = np.sqrt(max(H[i, i], EPS * top)) if top > 0.0 else 1.0
    inverse = 1.0 / scale
    for i in range(n):
        high, low = 0.0, 0.0
        for j in range(n):
            if j != i:
                share = H[i, j] * inverse[j]
                high, low = max(high, share), min(low, share)
        found[1, i], found[2, i] = high * inverse[i], -low * inverse[i]
    return found


@njit(cache=True, nogil=True)
def open_reach(H, w, limits):  # type: ignore[no-untyped-def]
    """The groups of a row.

    Args:
        H: `[n, n]`.
        w: `[n]`.
        limits: `[3, n]` correlations of H, or `[3, 0]` for a reach with nothing in it.
    """
    n = limits.shape[1]
    size, half = np.zeros(n), np.zeros(n)
    for i in range(n):
        size[i] = abs(w[i]) * limits[0, i]
        half[i] = 0.5 * w[i] * w[i] * H[i, i]
    below, above = np.flatnonzero(w[:n] < 0.0), np.flatnonzero(w[:n] >= 0.0)
    order = np.append(below[np.argsort(size[below])], above[np.argsort(size[above])])
    minus = len(below)
    negative = -(-minus // GROUP)
    groups = negative - (-(n - minus) // GROUP)
    edges = np.empty(groups + 1, np.int64)
    for g in range(groups + 1):
        edges[g] = GROUP * g if g < negative else minus + GROUP * (g - negative)
    edges[groups] = n
    size, half = size[order], half[order]
    most, tops = np.empty((2, n)), np.zeros((3, groups))
    for p in range(n):
        most[0, p], most[1, p] = limits[1, order[p]], limits[2, order[p]]
    for g in range(groups):
        for p in range(edges[g], edges[g + 1]):
            tops[0, g] = max(tops[0, g], size[p])
            tops[1, g] = max(tops[1, g], most[0, p])
            tops[2, g] = max(tops[2, g], most[1, p])
    return Reach(order, size, most, half, edges, tops, np.full(1, negative))


@njit(cache=True, nogil=True, fastmath=FLAGS)
def best_reached_swap(row, barred, aspiration, cutoff):  # type: ignore[no-untyped-def]
    """The best swap of a selection, as `best_swap` finds it, without a look at most of the others.

    Pairs of groups are passed over, and then entries, whose swaps can't be better than the best so far.

    Args:
        row: the state, with a reach.
        barred: `[n]` bool; entries that may not move,
        aspiration: unless the swap's change is below this.
        cutoff: changes that are not below this are of no interest.
    """
    order, half, edges = row.reach.order, row.reach.half, row.reach.edges
    groups = len(edges) - 1
    back, front = row.spare[0], row.spare[1]
    lows = np.full((2, groups), np.inf)
    largest = 0.0
    for g in range(groups):
        for p in range(edges[g], edges[g + 1]):
            k = order[p]
            back[p] = front[p] = np.inf
            pull = row.y[k] - row.c[k]
            largest = max(largest, half[p] + abs(pull))
            if barred[k] and not aspiration > -np.inf:
                continue
            if row.pruned[k]:
                back[p] = half[p] - pull
                lows[0, g] = min(lows[0, g], back[p])
            else:
                front[p] = half[p] + pull
                lows[1, g] = min(lows[1, g], front[p])
    slack = 64.0 * EPS * largest
    bounds, leasts = np.empty(groups), np.full(groups, np.inf)
    least, first, second = np.inf, 0, 0
    for a in range(groups):
        _bound(row.reach, lows, a, bounds)
        for b in range(groups):
            leasts[a] = min(leasts[a], bounds[b])
            if bounds[b] < least:
                least, first, second = bounds[b], a, b
    found = (cutoff, -1, -1)
    if least < cutoff + slack:
        found = _look(row, first, second, lows[0, first], barred, aspiration, slack, found)
    for a in range(groups):
        if leasts[a] < found[0] + slack:
            _bound(row.reach, lows, a, bounds)
            for b in range(groups):
                if bounds[b] < found[0] + slack:
                    found = _look(row, a, b, lows[0, a], barred, aspiration, slack, found)
    return found


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _bound(reach, lows, a, bounds):  # type: ignore[no-untyped-def]
    """The least change of the swaps that restore one of group a, for every group of what is pruned."""
    tops, negative = reach.tops, reach.negative[0]
    for b in range(len(bounds)):
        kind = 1 if (a < negative) == (b < negative) else 2
        bounds[b] = lows[0, a] + lows[1, b] - min(tops[kind, a], tops[kind, b]) * tops[0, a] * tops[0, b]


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _look(row, a, b, low, barred, aspiration, slack, found):  # type: ignore[no-untyped-def]
    """The better of `found` and the swaps that restore one of group a, and prune one of group b."""
    order, size, edges, tops = row.reach.order, row.reach.size, row.reach.edges, row.reach.tops
    kind = 0 if (a < row.reach.negative[0]) == (b < row.reach.negative[0]) else 1
    most = row.reach.most[kind]
    back, front = row.spare[0], row.spare[1]
    best, come, go = found
    for q in range(edges[b], edges[b + 1]):
        rest = best + slack - front[q]
        if not low - min(tops[1 + kind, a], most[q]) * tops[0, a] * size[q] < rest:
            continue
        j = order[q]
        begin, end = row.first[j], row.last[j]
        for p in range(edges[a], edges[a + 1]):
            if back[p] - min(most[p], most[q]) * size[p] * size[q] < rest:
                i = order[p]
                change = back[p] + front[q] - row.w[i] * row.w[j] * row.H[j, i]
                passes = change < aspiration or not (barred[i] or barred[j])
                if change < best and passes and begin <= i < end:
                    best, come, go = change, i, j
                    rest = best + slack - front[q]
    return best, come, go
