"""A node's relaxation solved by projected Newton steps, each a small quadratic programme."""

from __future__ import annotations

import numpy as np

from solvers.bounds.node.descent import TINY, descend
from solvers.bounds.node.oracle import best_sum, curvature, evaluate, model_of
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.runtime.compiled import njit


@njit(cache=True, nogil=True)
def repair(z, fix, labels, need):
    """Move z to the nearest sensible point of the polytope of a node's fixings."""
    n = len(z)
    start = 0
    for p in range(len(need)):
        stop = start
        mass = partial = room = free = 0.0
        while stop < n and labels[stop] == p:
            if fix[stop] != 0:
                z[stop] = 1.0 if fix[stop] > 0 else 0.0
            else:
                mass += z[stop]
                free += 1.0
                if 0.0 < z[stop] < 1.0:
                    partial += z[stop]
                    room += 1.0 - z[stop]
            stop += 1
        excess = mass - need[p]
        if excess > 0:
            share = min(1.0, excess / partial) if partial > 0 else 0.0
            left = excess - share * partial
            ones = mass - partial
            for i in range(start, stop):
                if fix[i] == 0:
                    if 0.0 < z[i] < 1.0:
                        z[i] *= 1.0 - share
                    elif z[i] >= 1.0 and left > 0:
                        z[i] = 1.0 - left / ones
        elif excess < 0:
            share = min(1.0, -excess / room) if room > 0 else 0.0
            left = -excess - share * room
            zeros = free - mass - room
            for i in range(start, stop):
                if fix[i] == 0:
                    if 0.0 < z[i] < 1.0:
                        z[i] += share * (1.0 - z[i])
                    elif z[i] <= 0.0 and left > 0:
                        z[i] = left / zeros
        start = stop


@njit(cache=True, nogil=True)
def relax(model, need, fix, z, cutoff, tight, max_steps, L, q, s, best, halt):
    """Solve a node's relaxation: `(bound, f, steps)`; z is left behind, in best the bound's scores and z.

    Stops as soon as the bound passes `cutoff`, or the bound is within `tight` of f relative to the
    distance that matters, or after `max_steps` Newton steps, or once `halt[0]` is set.
    """
    n, labels = len(z), model.labels
    pools = len(need)
    inner, outer = np.empty(pools), np.empty(pools)
    repair(z, fix, labels, need)
    f, base, rounding = evaluate(model, z, L, q, s)
    bound = base - best_sum(s, fix, labels, need, inner, outer) - rounding
    if np.isnan(bound):
        bound = -np.inf
    best[0] = s
    best[1] = z
    steps = 0
    K = np.empty((n, n))
    p = np.empty(n)
    trial = np.empty(n)
    while steps < max_steps and bound < cutoff and not halt[0]:
        distance = min(cutoff - bound, abs(f))
        if f - bound <= max(tight * distance, 4.0 * rounding) and f < cutoff:
            break
        if f - bound <= 8.0 * rounding:
            break
        steps += 1
        count = 0
        work = np.empty(n, np.int64)
        for i in range(n):
            if fix[i] == 0:
                pool = labels[i]
                if (
                    (
                        0.0 < z[i] < 1.0
                        or (z[i] <= 0.0 and s[i] > inner[pool])
                        or (z[i] <= 0.0 and s[i] == inner[pool])
                        or (z[i] >= 1.0 and s[i] <= outer[pool])
                    )
                    or (z[i] <= 0.0 and s[i] >= outer[pool])
                    or (z[i] >= 1.0 and s[i] <= inner[pool])
                ):
                    work[count] = i
                    count += 1
        work = work[:count]
        if count < 2:
            break
        curvature(model, z, L, q, work, K)
        descend(K, s, z, work, labels, p)
        slope = 0.0
        for k in range(count):
            slope -= s[work[k]] * p[k]
        if slope >= 0.0:
            break
        t = 1.0
        before = f
        for _ in range(12):
            trial[:] = z
            for k in range(count):
                share = z[work[k]] + t * p[k]
                if share < TINY:
                    share = 0.0
                elif share > 1.0 - TINY:
                    share = 1.0
                trial[work[k]] = share
            f, base, rounding = evaluate(model, trial, L, q, s)
            if f <= before + 1e-4 * t * slope:
                break
            t *= 0.5
        z[:] = trial
        found = base - best_sum(s, fix, labels, need, inner, outer) - rounding
        if found > bound:
            bound = found
            best[0] = s
            best[1] = z
        if before - f <= 1e-13 * abs(before):
            break
    return bound, f, steps


def relaxed_shares(block: Block, d: Array, z: Array, *, tolerance: float = 1e-3) -> Array:
    """`[n]` indicators that solve a block's relaxation at a given split.

    Args:
        block: the block.
        d: `[g, n]` split.
        z: `[n]` where to start.
        tolerance: relative distance of bound and relaxed value at which to stop.
    """
    n, model = block.n, model_of(block, d)
    shares = np.array(z, dtype=np.float64)
    L, q = np.empty(block.H.shape), np.empty(block.B.shape)
    s, best = np.empty(n), np.empty((2, n))
    fix = np.zeros(n, np.int8)
    halt = np.zeros(1, np.bool_)
    relax(model, block.keep.copy(), fix, shares, np.inf, tolerance, 60, L, q, s, best, halt)
    return shares
