"""Depth-first branch and bound on a narrow selection, compiled, in slices that Python can interrupt.

A node is bounded by its relaxation and rounded; what the bound decides is fixed (reduced-cost fixing); and an
entry is branched on by pseudo-costs (Benichou et al. 1971), its nearer side first. Depth-first takes no more
room than a path, so that a node is little more than its relaxation; that it meets few nodes which best-first
would not takes a good incumbent: the first roundings, and some of all others, are improved by swaps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.exact.selections.relaxation import bound_at, descend, repair, slope
from solvers.exact.tree.branching import FRACTIONAL, learn
from solvers.exact.tree.fixing import follow, possible, settle
from solvers.hessian import Array
from solvers.runtime.compiled import njit

TIGHT = 0.3
"""How exactly relaxations are solved, as a share of the way from the bound to the cutoff."""
ROUNDED = 16
"""Nodes whose shares are rounded to a mask, and afterwards one in as many."""
GAIN = 1e-9
"""A swap counts when it lowers the cost by more than this, relative to it."""
UNSEEN = 0.1
"""Of the curvature along a share, what branching on it may be expected to gain by it before any is seen."""


class Path(NamedTuple):
    """What a search keeps between slices: its open nodes, of which the last is next, and what it has found.

    Attributes:
        fixes: `[n + 2, n]` 1 kept, -1 pruned, 0 free.
        shares: `[n + 2, n]` shares pruned to start from.
        lower: `[n + 2]` bound known.
        sides: `[n + 2]` entry branched on plus one, negative where kept, 0 if none.
        moved: `[n + 2]` how far that branching moved the entry's share.
        costs: `[4, n]` pseudo-costs: sums and counts for keeping, sums and counts for pruning.
        best: `[n]` incumbent, 1.0 where pruned.
        counts: `[2]` open nodes, and nodes processed.
        levels: `[6]` the incumbent's cost, the bound that proves it, the least bound of what was closed, the
            relative gap to prove, the part of it that rounding in the block takes, and what rounding may move
            a bound by.
    """

    fixes: NDArray[np.int8]
    shares: Array
    lower: Array
    sides: NDArray[np.int64]
    moved: Array
    costs: Array
    best: Array
    counts: NDArray[np.int64]
    levels: Array


OPEN, NODES = range(2)
UPPER, CUTOFF, FLOOR, GAP, MARGIN, NOISE = range(6)


@njit(cache=True, nogil=True)
def begin(convex, path, gap, margin, noise):
    """Open the root, whose shares and incumbent are in place; the incumbent is improved by swaps.

    Args:
        convex: the selection at its split.
        path: the search's state.
        gap: relative gap to prove.
        margin: part of it that rounding in the block takes.
        noise: what rounding may move a bound by, at least.
    """
    n, t, levels = len(path.best), np.zeros(len(convex.prune)), path.levels
    _, rounding = bound_at(convex, path.fixes[0], convex.prune, path.shares[0], t, np.empty(n))
    levels[FLOOR], levels[GAP], levels[MARGIN] = np.inf, gap, margin
    levels[NOISE] = max(noise, 2.0 * rounding + margin)
    _take(levels, _improve(convex, path.best))
    path.counts[OPEN] = 1


@njit(cache=True, nogil=True)
def search(convex, chains, path, halt, limit):
    """Process up to `limit` nodes; whether none is open then.

    Args:
        convex: the selection at its split.
        chains: interchangeable entries; see `solvers.exact.tree.fixing.follow`.
        path: the search's state.
        halt: `[1]` set from outside to end a slice.
        limit: nodes at most.
    """
    counts, levels = path.counts, path.levels
    n, pools = len(convex.labels), len(convex.prune)
    s, t, trial = np.empty(n), np.zeros(pools), np.empty(n)
    until = counts[NODES] + limit
    while counts[OPEN] > 0 and counts[NODES] < until and not halt[0]:
        counts[OPEN] -= 1
        at = counts[OPEN]
        if path.lower[at] >= levels[CUTOFF]:
            levels[FLOOR] = min(levels[FLOOR], path.lower[at])
            continue
        counts[NODES] += 1
        _process(convex, chains, path, at, s, t, trial)
    return counts[OPEN] == 0


@njit(cache=True, nogil=True)
def _process(convex, chains, path, at, s, t, trial):
    """Bound the node in place `at`, and close it or put its children there."""
    levels, labels, fix, x = path.levels, convex.labels, path.fixes[at], path.shares[at]
    if not follow(fix, chains):
        return
    keep = _left_to_keep(convex, fix)
    if not possible(fix, labels, keep):
        return
    left = settle(fix, labels, keep)
    need = _left_to_prune(convex, fix)
    repair(convex, fix, need, x, s)
    descend(convex, fix, levels[CUTOFF], TIGHT, x, s, t)
    own, _ = bound_at(convex, fix, need, x, t, s)
    if path.sides[at] != 0:
        side = path.sides[at]
        gain = max(own - path.lower[at], 0.0)
        learn(path.costs, abs(side) - 1, 0 if side < 0 else 1, gain, path.moved[at])
    bound = max(own, path.lower[at])
    nodes = path.counts[NODES]
    if bound < levels[CUTOFF] and (left == 0 or nodes <= ROUNDED or nodes % ROUNDED == 0):
        _round(convex, path, fix, need, x, trial)
    if left == 0 or bound >= levels[CUTOFF]:
        levels[FLOOR] = min(levels[FLOOR], bound)
        return
    for i in range(len(fix)):
        reduced = s[i] - t[labels[i]]
        if fix[i] == 0 and own + abs(reduced) >= levels[CUTOFF]:
            levels[FLOOR] = min(levels[FLOOR], own + abs(reduced))
            fix[i] = 1 if reduced > 0.0 else -1
    path.lower[at], path.sides[at] = bound, 0
    picked = _choose(convex, path, fix, x, s, t, levels[CUTOFF] - bound)
    path.counts[OPEN] += 1
    if picked >= 0:
        _branch(path, at, picked, x[picked])


@njit(cache=True, nogil=True)
def _left_to_keep(convex, fix):
    """`[pools]` free entries to keep."""
    need = -convex.prune
    for i in range(len(fix)):
        need[convex.labels[i]] += 1
        if fix[i] > 0:
            need[convex.labels[i]] -= 1
    return need


@njit(cache=True, nogil=True)
def _left_to_prune(convex, fix):
    """`[pools]` free entries to prune."""
    need = convex.prune.copy()
    for i in range(len(fix)):
        if fix[i] < 0:
            need[convex.labels[i]] -= 1
    return need


@njit(cache=True, nogil=True)
def _round(convex, path, fix, need, x, trial):
    """Round a node's shares to a mask, improved by swaps; maybe a new incumbent."""
    labels, n, start, levels = convex.labels, len(x), 0, path.levels
    for p in range(len(need)):
        stop = start
        while stop < n and labels[stop] == p:
            stop += 1
        left = need[p]
        for i in range(start, stop):
            trial[i] = 1.0 if fix[i] < 0 else 0.0
        for k in np.argsort(-x[start:stop]):
            if left > 0 and fix[start + k] == 0:
                trial[start + k] = 1.0
                left -= 1
        start = stop
    value = _improve(convex, trial)
    if value < levels[UPPER]:
        path.best[:] = trial
        _take(levels, value)


@njit(cache=True, nogil=True)
def _take(levels, value):
    """Take an incumbent's cost, and the bound that would prove it."""
    levels[UPPER] = value
    levels[CUTOFF] = value - max(levels[GAP] * abs(value) - levels[MARGIN], levels[NOISE])


@njit(cache=True, nogil=True)
def _improve(convex, pruned):
    """Make a mask's best swaps, until none gains; its cost. `[n]`, 1.0 where pruned.

    A swap that gained by rounding alone is undone: near a cost of zero two could gain in turn for ever.
    """
    A, c, labels, n = convex.A, convex.c, convex.labels, len(pruned)
    s, last, into, out = np.empty(n), np.inf, -1, -1
    while True:
        slope(A, -c, pruned, s)
        value = 0.0
        for i in range(n):
            value += 0.5 * pruned[i] * (s[i] - c[i])
        if into >= 0 and not value < last:
            pruned[into], pruned[out] = 0.0, 1.0
            return last
        best, last, into, out = -GAIN * abs(value), value, -1, -1
        for i in range(n):
            if pruned[i] == 0.0:
                row, own = A[i], s[i] + 0.5 * A[i, i]
                for j in range(n):
                    if pruned[j] != 0.0 and labels[j] == labels[i]:
                        change = own - s[j] + 0.5 * A[j, j] - row[j]
                        if change < best:
                            best, into, out = change, i, j
        if into < 0:
            return value
        pruned[into], pruned[out] = 1.0, 0.0


@njit(cache=True, nogil=True)
def _choose(convex, path, fix, x, s, t, room):
    """The free entry whose branchings should gain most, by their product; -1 if there is none."""
    costs, picked, most = path.costs, -1, -1.0
    for i in range(len(fix)):
        if fix[i] == 0 and FRACTIONAL < x[i] < 1.0 - FRACTIONAL:
            bend = UNSEEN * convex.R[i, i]
            kept, pruned = bend * x[i] ** 2, bend * (1.0 - x[i]) ** 2
            if costs[1, i] > 0.0:
                kept = x[i] * costs[0, i] / costs[1, i]
            if costs[3, i] > 0.0:
                pruned = (1.0 - x[i]) * costs[2, i] / costs[3, i]
            score = max(min(kept, room), 1e-6 * room) * max(min(pruned, room), 1e-6 * room)
            if score > most:
                picked, most = i, score
    if picked >= 0:
        return picked
    nearest = np.inf
    for i in range(len(fix)):
        distance = abs(s[i] - t[convex.labels[i]])
        if fix[i] == 0 and distance < nearest:
            picked, nearest = i, distance
    return picked


@njit(cache=True, nogil=True)
def _branch(path, at, entry, share):
    """Put a node's children in its place and the next, the one on the side of its share last."""
    after = at + 1
    path.fixes[after], path.shares[after] = path.fixes[at], path.shares[at]
    path.lower[after] = path.lower[at]
    path.counts[OPEN] += 1
    for place, pruned in ((at, share <= 0.5), (after, share > 0.5)):
        path.fixes[place, entry] = -1 if pruned else 1
        path.sides[place] = entry + 1 if pruned else -entry - 1
        path.moved[place] = 1.0 - share if pruned else share
