"""Where to branch: pseudo-costs, started from second derivatives and made reliable by probing."""

from __future__ import annotations

import numpy as np
from numba import njit

from solvers.bounds.node.newton import relax
from solvers.bounds.node.oracle import curvature
from solvers.exact.tree.state import PROBES

FRACTIONAL = 1e-6
"""Shares nearer than this to 0 or 1 count as decided when branching."""


@njit(cache=True, nogil=True)
def stiffness(model, z, L, q, candidates, K):
    """Second-order cost of moving each candidate alone, the others of its pool giving way.

    `1 / (2 P_ii)` with P the inverse of f'' on the candidates, projected on the sum of i's own pool:
    what an OBS saliency is to a weight, for a share. Holding the other pools' sums too takes more nodes.
    """
    w, labels = len(candidates), model.labels
    curvature(model, z, L, q, candidates, K)
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
def choose(model, names, need, fix, z, bound, cutoff, L, q, s, K, costs, probe, integers, sides, halt):
    """The entry to branch on: `(entry, kind, bound)`.

    Entries are the model's, and `names` are theirs in the block, for which `costs` are kept.
    Kind 0: branch there. Kind 1: probing fixed the entry in `fix`, as the other side has that bound: look
    at the node again. Kind 2: both sides are past the cutoff. `sides [2, 2, n]` takes the scores and
    shares of the last probe's bounds, pruned and kept.

    Pseudo-costs (Benichou et al. 1971), started from `stiffness` and made reliable by probing both
    children (Achterberg et al. 2005); scores are products.
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
    stiff = stiffness(model, z, L, q, candidates, K)
    score = np.empty(count)
    down, up = np.empty(count), np.empty(count)
    floor = 1e-6 * (cutoff - bound)
    for k in range(count):
        i = candidates[k]
        down[k] = stiff[k] * z[i] ** 2
        up[k] = stiff[k] * (1.0 - z[i]) ** 2
        name = names[i]
        if costs[1, name] > 0:
            down[k] = z[i] * costs[0, name] / costs[1, name]
        if costs[3, name] > 0:
            up[k] = (1.0 - z[i]) * costs[2, name] / costs[3, name]
        score[k] = max(min(down[k], cutoff - bound), floor) * max(min(up[k], cutoff - bound), floor)
    order = np.argsort(-score)
    best, picked = -1.0, candidates[order[0]]
    probed, stale = 0, 0
    child_fix, child_need, trial = fix.copy(), need.copy(), z.copy()
    for rank in range(count):
        k = order[rank]
        i = candidates[k]
        name = names[i]
        if min(costs[1, name], costs[3, name]) >= probe or probed >= 8 or stale >= 4 or halt[0]:
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
            child_need[model.labels[i]] -= direction
            found, _, _ = relax(
                model, child_need, child_fix, trial, cutoff, 0.2, 3, L, q, s, sides[direction], halt
            )
            integers[PROBES] += 1
            gains[direction] = max(found - bound, 0.0)
            share = z[i] if direction == 0 else 1.0 - z[i]
            costs[2 * direction, name] += gains[direction] / max(share, 1e-3)
            costs[2 * direction + 1, name] += 1.0
        room = cutoff - bound
        if gains[0] >= room and gains[1] >= room:
            return i, 2, bound + min(gains[0], gains[1])
        if gains[0] >= room or gains[1] >= room:
            fix[i] = 1 if gains[0] >= room else -1
            return i, 1, bound + max(gains[0], gains[1])
        result = max(gains[0], floor) * max(gains[1], floor)
        if result > best:
            best, picked, stale = result, i, 0
        else:
            stale += 1
    return picked, 0, bound
