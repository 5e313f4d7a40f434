"""The tree of one block, compiled: best-first with plunging, in slices that Python can interrupt."""

from __future__ import annotations

import numpy as np
from numba import njit

from solvers.bounds.newton import relax
from solvers.bounds.oracle import curvature, evaluate

# slots of the integer state
HEAP, FREE, NODES, CURRENT, STEPS, PROBES = range(6)
# slots of the real state
UPPER, FLOOR, CUTOFF, GAP, NOISE = range(5)

FRACTIONAL = 1e-6
"""Shares nearer than this to 0 or 1 count as decided when branching."""


@njit(cache=True, nogil=True)
def push(heap, state, lower, node):
    """Put an open node on the heap of least bounds."""
    i = state[HEAP]
    state[HEAP] += 1
    while i > 0:
        parent = (i - 1) >> 1
        if lower[heap[parent]] <= lower[node]:
            break
        heap[i] = heap[parent]
        i = parent
    heap[i] = node


@njit(cache=True, nogil=True)
def pop(heap, state, lower):
    """Take the open node of least bound."""
    top = heap[0]
    state[HEAP] -= 1
    size = state[HEAP]
    node = heap[size]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and lower[heap[child + 1]] < lower[heap[child]]:
            child += 1
        if lower[node] <= lower[heap[child]]:
            break
        heap[i] = heap[child]
        i = child
    if size > 0:
        heap[i] = node
    return top


@njit(cache=True, nogil=True)
def accept(real, value):
    """Take a new incumbent value, and the bound that would prove it."""
    real[UPPER] = value
    real[CUTOFF] = value - max(real[GAP] * abs(value), real[NOISE])


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


@njit(cache=True, nogil=True)
def stiffness(refit, R, d, z, L, q, candidates, labels, K):
    """Second-order cost of moving each candidate alone, the others of its pool giving way.

    `1 / (2 P_ii)` with P the inverse of f'' on the candidates, projected on the sum of i's own pool:
    what an OBS saliency is to a weight, for a share. Holding the other pools' sums too takes more nodes.
    """
    w = len(candidates)
    curvature(refit, R, d, z, L, q, candidates, K)
    A = K[:w, :w].copy()
    top = 0.0
    for i in range(w):
        top = max(top, A[i, i])
    for i in range(w):
        A[i, i] += 1e-8 * top + 1e-300
    inverse = np.linalg.inv(A)
    out = np.empty(w)
    first = 0
    while first < w:
        last = first
        while last < w and labels[candidates[last]] == labels[candidates[first]]:
            last += 1
        total = inverse[first:last, first:last].sum()
        for i in range(first, last):
            lean = inverse[i, first:last].sum()
            share = inverse[i, i] - lean * lean / total if total > 0 else inverse[i, i]
            out[i] = 0.5 / max(share, 1e-12 * inverse[i, i] + 1e-300)
        first = last
    return out


@njit(cache=True, nogil=True)
def grow(
    refit,
    R,
    d,
    B,
    constant,
    labels,
    keep,
    integers,
    real,
    fixes,
    shares,
    lower,
    sides,
    parents,
    heap,
    spare,
    costs,
    incumbent,
    limit,
    probe,
):
    """Process up to `limit` nodes; 0 when the tree is done, 1 when the slice is, 2 when memory is.

    Args as laid out by `Tree`: `costs [4, n]` holds pseudo-cost sums and counts for pruning and for
    keeping, `probe` is how often an entry is probed before its pseudo-costs are trusted.
    """
    groups, n, columns = B.shape
    L = np.empty((groups, n, n))
    q = np.empty((groups, n, columns))
    s, best_s, z, trial = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    K = np.empty((n, n))
    need, child_need = np.empty(len(keep), np.int64), np.empty(len(keep), np.int64)
    child_fix = np.empty(n, np.int8)
    done = 0
    while done < limit:
        if integers[FREE] < 2:
            return 2
        node = integers[CURRENT]
        if node < 0:
            if integers[HEAP] == 0:
                return 0
            node = pop(heap, integers, lower)
            if lower[node] >= real[CUTOFF]:
                real[FLOOR] = min(real[FLOOR], lower[node])
                integers[HEAP] = 0
                return 0
        integers[CURRENT] = -1
        done += 1
        integers[NODES] += 1
        fix = fixes[node]
        z[:] = shares[node]
        need[:] = keep
        for i in range(n):
            if fix[i] > 0:
                need[labels[i]] -= 1
        left = settle(fix, labels, need)
        inherited = lower[node]
        bound, _, steps = relax(
            refit, R, d, B, constant, labels, need, fix, z, real[CUTOFF], 0.05, 25, L, q, s, best_s
        )
        integers[STEPS] += steps
        bound = max(bound, inherited)
        side = sides[node]
        if side != 0 and bound < real[CUTOFF]:
            i = abs(side) - 1
            slot = 0 if side < 0 else 2
            costs[slot, i] += (bound - inherited) / max(parents[node], 1e-3)
            costs[slot + 1, i] += 1.0
        if bound >= real[CUTOFF]:
            real[FLOOR] = min(real[FLOOR], bound)
            spare[integers[FREE]] = node
            integers[FREE] += 1
            continue

        round_shares(z, labels, keep, trial)
        value, _, rounding = evaluate(refit, R, d, B, constant, trial, L, q, s)
        if value < real[UPPER]:
            accept(real, value)
            incumbent[:] = trial
        if left == 0:
            real[FLOOR] = min(real[FLOOR], max(bound, value - rounding))
            spare[integers[FREE]] = node
            integers[FREE] += 1
            continue

        fix_by_scores(best_s, bound, real[CUTOFF], fix, labels, need)
        left = settle(fix, labels, need)
        picked, kind = -1, 0
        if left > 0:
            evaluate(refit, R, d, B, constant, z, L, q, s)
            picked, kind, found = choose(
                refit,
                R,
                d,
                B,
                constant,
                labels,
                need,
                fix,
                z,
                bound,
                real[CUTOFF],
                L,
                q,
                s,
                K,
                costs,
                probe,
                child_fix,
                child_need,
                trial,
                best_s,
                integers,
            )
            if kind == 2:
                real[FLOOR] = min(real[FLOOR], max(found, real[CUTOFF]))
                spare[integers[FREE]] = node
                integers[FREE] += 1
                continue
        lower[node] = bound
        shares[node] = z
        if left == 0 or kind == 1:
            sides[node] = 0
            integers[CURRENT] = node
            continue
        integers[FREE] -= 1
        twin = spare[integers[FREE]]
        fixes[twin] = fix
        shares[twin] = z
        lower[twin] = bound
        first = 1 if z[picked] > 0.5 else -1
        fix[picked] = first
        fixes[twin, picked] = -first
        sides[node], sides[twin] = first * (picked + 1), -first * (picked + 1)
        parents[node] = 1.0 - z[picked] if first > 0 else z[picked]
        parents[twin] = 1.0 - parents[node]
        push(heap, integers, lower, twin)
        if integers[HEAP] > 0 and lower[heap[0]] < bound - 0.25 * (real[CUTOFF] - bound):
            push(heap, integers, lower, node)
        else:
            integers[CURRENT] = node
    return 1


@njit(cache=True, nogil=True)
def choose(
    refit,
    R,
    d,
    B,
    constant,
    labels,
    need,
    fix,
    z,
    bound,
    cutoff,
    L,
    q,
    s,
    K,
    costs,
    probe,
    child_fix,
    child_need,
    trial,
    best_s,
    integers,
):
    """The entry to branch on: `(entry, kind, bound)`.

    Kind 0: branch there. Kind 1: probing fixed something in `fix`, look at the node again. Kind 2:
    both sides are past the cutoff. Pseudo-costs (Benichou et al. 1971), started from `stiffness` and
    made reliable by probing both children (Achterberg et al. 2005); scores are products.
    """
    n = len(z)
    count = 0
    candidates = np.empty(n, np.int64)
    for i in range(n):
        if fix[i] == 0 and FRACTIONAL < z[i] < 1.0 - FRACTIONAL:
            candidates[count] = i
            count += 1
    if count == 0:
        picked, nearest = -1, np.inf
        for i in range(n):
            if fix[i] == 0:
                distance = -s[i] if z[i] < 0.5 else s[i]
                if picked < 0 or distance < nearest:
                    picked, nearest = i, distance
        return picked, 0, bound
    candidates = candidates[:count]
    stiff = stiffness(refit, R, d, z, L, q, candidates, labels, K)
    score = np.empty(count)
    down, up = np.empty(count), np.empty(count)
    floor = 1e-6 * (cutoff - bound)
    for k in range(count):
        i = candidates[k]
        down[k] = stiff[k] * z[i] ** 2
        up[k] = stiff[k] * (1.0 - z[i]) ** 2
        if costs[1, i] > 0:
            down[k] = z[i] * costs[0, i] / costs[1, i]
        if costs[3, i] > 0:
            up[k] = (1.0 - z[i]) * costs[2, i] / costs[3, i]
        score[k] = max(min(down[k], cutoff - bound), floor) * max(min(up[k], cutoff - bound), floor)
    order = np.argsort(-score)
    best, picked = -1.0, candidates[order[0]]
    probed, stale = 0, 0
    for rank in range(count):
        k = order[rank]
        i = candidates[k]
        if min(costs[1, i], costs[3, i]) >= probe or probed >= 8 or stale >= 4:
            if score[k] > best:
                best, picked = score[k], i
            continue
        probed += 1
        gains = np.zeros(2)
        for direction in range(2):
            child_fix[:] = fix
            child_need[:] = need
            trial[:] = z
            child_fix[i] = -1 if direction == 0 else 1
            child_need[labels[i]] -= direction
            found, _, _ = relax(
                refit,
                R,
                d,
                B,
                constant,
                labels,
                child_need,
                child_fix,
                trial,
                cutoff,
                0.2,
                3,
                L,
                q,
                s,
                best_s,
            )
            integers[PROBES] += 1
            gains[direction] = max(found - bound, 0.0)
            share = z[i] if direction == 0 else 1.0 - z[i]
            costs[2 * direction, i] += gains[direction] / max(share, 1e-3)
            costs[2 * direction + 1, i] += 1.0
        room = cutoff - bound
        if gains[0] >= room and gains[1] >= room:
            return i, 2, bound + min(gains[0], gains[1])
        if gains[0] >= room or gains[1] >= room:
            fix[i] = 1 if gains[0] >= room else -1
            return i, 1, bound
        result = max(gains[0], floor) * max(gains[1], floor)
        if result > best:
            best, picked, stale = result, i, 0
        else:
            stale += 1
    return picked, 0, bound
