"""A selection's relaxation at a node, solved by moving shares between two entries at a time, compiled.

With the split `A = R + diag(d)`, `R >= 0`, and the shares pruned x, it is

    min f(x) = 1/2 x'Rx + (d/2 - c)'x    over 0 <= x <= 1, sum_pool x = prune,    s = f'(x) = R x + d/2 - c

Two entries of a pool are picked as in sequential minimal optimisation for support vector machines (Fan, Chen,
Lin 2005: the steepest entry to prune, and the one to keep that gains most with it), and their best move takes
O(n). A child's relaxation is a few such moves away from its parent's. By convexity, and duality in the pools'
sums, no point costs less than

    LB(x, t) = -1/2 x'Rx + sum_pruned s + sum_pools t prune + sum_free min(0, s - t)

whatever x and the pools' thresholds t are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.node.oracle import EPS
from solvers.hessian import Array
from solvers.runtime.compiled import FLAGS, njit

LOOK = 4
"""Moves between two looks at the bound."""
MOVES = 400
"""At one node at most."""
SHORT = 1e-12
"""Shares nearer than this to 0 or 1 are moved there."""


class Convex(NamedTuple):
    """A selection at its split.

    Attributes:
        A: `[n, n]` curvature: pruning P costs `1/2 x_P'A x_P - c'x_P`.
        c: `[n]` linear terms.
        R: `[n, n]`, `A - diag(d)`.
        shift: `[n]`, `d/2 - c`.
        size: `[n]`, `(|R_ii| + |d_i|)^1/2`, for rounding.
        labels: `[n]` pool of every entry, never falling.
        prune: `[pools]` entries to prune.
    """

    A: Array
    c: Array
    R: Array
    shift: Array
    size: Array
    labels: NDArray[np.int64]
    prune: NDArray[np.int64]


@njit(cache=True, nogil=True, fastmath=FLAGS)
def slope(R, shift, x, s):
    """`R x + shift` into s."""
    n = len(x)
    s[:] = shift
    for j in range(n):
        if x[j] != 0.0:
            share, row = x[j], R[j]
            for i in range(n):
                s[i] += share * row[i]


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _move(R, i, step, x, s):
    """Move one share, and the slopes with it."""
    x[i] += step
    row = R[i]
    for k in range(len(x)):
        s[k] += step * row[k]


@njit(cache=True, nogil=True)
def repair(convex, fix, need, x, s):
    """Move x to a point of a node's polytope near by, and s to its slopes.

    Args:
        convex: the selection.
        fix: `[n]` 1 kept, -1 pruned, 0 free.
        need: `[pools]` free entries still to prune.
        x: `[n]` shares.
        s: `[n]` slopes.
    """
    R, labels, n = convex.R, convex.labels, len(x)
    slope(R, convex.shift, x, s)
    for i in range(n):
        if fix[i] != 0:
            step = (1.0 if fix[i] < 0 else 0.0) - x[i]
            if step != 0.0:
                _move(R, i, step, x, s)
    start = 0
    for p in range(len(need)):
        stop, rest = start, float(need[p])
        while stop < n and labels[stop] == p:
            if fix[stop] == 0:
                rest -= x[stop]
            stop += 1
        while abs(rest) > SHORT:
            side = 1.0 if rest > 0.0 else -1.0
            picked, least, room = -1, np.inf, 0.0
            for i in range(start, stop):
                left = 1.0 - x[i] if side > 0.0 else x[i]
                if fix[i] == 0 and left > 0.0 and side * s[i] < least:
                    picked, least, room = i, side * s[i], left
            if picked < 0:
                break
            step = side * min(abs(rest), room)
            _move(R, picked, step, x, s)
            if abs(step) == room:
                x[picked] = 1.0 if side > 0.0 else 0.0
            rest -= step
        start = stop


@njit(cache=True, nogil=True, fastmath=FLAGS)
def descend(convex, fix, cutoff, tight, x, s, t):
    """Lower f until the bound is past the cutoff, or within `tight` of f as a share of its way there.

    Args:
        convex: the selection.
        fix: `[n]` fixings.
        cutoff: a bound past it ends the work.
        tight: how exactly to solve.
        x: `[n]` feasible shares, changed.
        s: `[n]` slopes there, which are not.
        t: `[pools]` takes thresholds.
    """
    R, pools, f = convex.R, len(t), 0.0
    for i in range(len(x)):
        f += 0.5 * x[i] * (s[i] + convex.shift[i])
    free = np.flatnonzero(fix == 0)
    m, y, g, kinds, own = len(free), x[free], s[free], convex.labels[free], np.empty(len(free))
    for a in range(m):
        own[a] = R[free[a], free[a]]
    for move in range(MOVES):
        into = out = -1
        worst, first = 0.0, 0
        for p in range(pools):
            low, high, i, j, last = np.inf, -np.inf, -1, -1, first
            while last < m and kinds[last] == p:
                if y[last] < 1.0 and g[last] < low:
                    low, i = g[last], last
                if y[last] > 0.0 and g[last] > high:
                    high, j = g[last], last
                last += 1
            first = last
            if i >= 0 and j >= 0:
                t[p] = 0.5 * (low + high)
                if high - low > worst:
                    worst, into, out = high - low, i, j
        if into < 0 or move % LOOK == 0:
            gap = 0.0
            for a in range(m):
                reduced = g[a] - t[kinds[a]]
                gap += max(y[a] * reduced, (y[a] - 1.0) * reduced)
            bound = f - gap
            if into < 0 or bound >= cutoff or (f < cutoff and gap <= tight * (cutoff - bound)):
                break
        row, best = R[free[into]], -1.0
        for a in range(m):
            drop = g[a] - g[into]
            if drop > 0.0 and y[a] > 0.0 and kinds[a] == kinds[into]:
                gain = drop * drop / max(own[into] + own[a] - 2.0 * row[free[a]], 1e-300)
                if gain > best:
                    best, out = gain, a
        other = R[free[out]]
        drop, bend = g[out] - g[into], max(own[into] + own[out] - 2.0 * row[free[out]], 1e-300)
        step = min(drop / bend, 1.0 - y[into], y[out])
        f -= step * drop - 0.5 * step * step * bend
        y[into] += step
        y[out] -= step
        if y[into] > 1.0 - SHORT:
            y[into] = 1.0
        if y[out] < SHORT:
            y[out] = 0.0
        for a in range(m):
            g[a] += step * (row[free[a]] - other[free[a]])
    x[free] = y


@njit(cache=True, nogil=True, fastmath=FLAGS)
def bound_at(convex, fix, need, x, t, s):
    """`(LB(x, t) - rounding, rounding)`; s becomes the slopes as computed afresh.

    The rounding is that of `solvers.bounds.node.oracle.evaluate`: of the sums over R by
    `sum_k |R_ik x_k| <= R_ii^1/2 sum_k R_kk^1/2 x_k`, and of all terms that are added.
    """
    n, labels = len(x), convex.labels
    slope(convex.R, convex.shift, x, s)
    total = terms = spread = reach = 0.0
    for i in range(n):
        product = s[i] - convex.shift[i]
        total -= 0.5 * x[i] * product
        spread += convex.size[i]
        reach += convex.size[i] * abs(x[i])
        terms += 2.0 * abs(s[i]) + abs(product) + 2.0 * abs(convex.shift[i])
        if fix[i] < 0:
            total += s[i]
        elif fix[i] == 0:
            total += min(0.0, s[i] - t[labels[i]])
            terms += abs(t[labels[i]])
    for p in range(len(need)):
        total += t[p] * need[p]
        terms += abs(t[p]) * need[p]
    rounding = 4.0 * (n + 8) * EPS * (terms + spread * reach + abs(total))
    if np.isnan(total - rounding):
        return -np.inf, 0.0
    return total - rounding, rounding
