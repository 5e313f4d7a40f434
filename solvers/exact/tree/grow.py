"""The tree of one block, compiled: best-first with plunging, in slices that Python can interrupt.

When room for open nodes runs short it is depth-first: twins go on a stack, and the newest comes first.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from solvers.bounds.node.newton import relax
from solvers.bounds.node.oracle import evaluate
from solvers.exact.tree.branching import choose
from solvers.exact.tree.fixing import fix_by_scores, follow, possible, round_shares, settle
from solvers.exact.tree.log import IMPOSSIBLE, fork, fork_fixed, keep_shares
from solvers.exact.tree.state import (
    CURRENT,
    CUTOFF,
    FLOOR,
    FREE,
    GAIN,
    GAINS,
    HEAP,
    MADE,
    NODES,
    RESERVE,
    SPARING,
    SPLITS,
    STEPS,
    TREE,
    UPPER,
    VECTORS,
    accept,
    drop,
    push,
    stack,
    take,
)
from solvers.exact.tree.subtree import load, resplit, spread


@njit(cache=True, nogil=True)
def _full(store, log, integers, n):
    """Whether a node might not find room for what it stores, or be the last that does."""
    if integers[FREE] < (2 if integers[RESERVE] else n + 8):
        return True
    if integers[SPLITS] >= len(store.roots) and integers[SPARING] <= integers[NODES]:
        return True
    if len(log.entry) == 0:
        return False
    return integers[TREE] + 6 * n + 8 > len(log.entry) or integers[VECTORS] + 6 > len(log.shares)


@njit(cache=True, nogil=True)
def _decide(scores, bound, real, fix, model, need, free, log, integers, at, vector):
    """Fix what scores and full pools decide: `(entries left, tree node)`."""
    before = fix.copy()
    removed = fix_by_scores(scores, bound, real[CUTOFF], fix, model.labels, need)
    real[FLOOR] = min(real[FLOOR], removed)
    between = fix.copy()
    left = settle(fix, model.labels, need)
    if len(log.entry):
        at = fork_fixed(log, integers, at, before, between, free, vector)
        at = fork_fixed(log, integers, at, between, fix, free, IMPOSSIBLE)
    return left, at


@njit(cache=True, nogil=True)
def _learn(store, integers, real, costs, node, gain):
    """What the branching that made a node has gained: its entry's pseudo-costs, and the mean of all."""
    side = store.sides[node]
    if side == 0:
        return
    i, slot = abs(side) - 1, 0 if side < 0 else 2
    costs[slot, i] += gain / max(store.parents[node], 1e-3)
    costs[slot + 1, i] += 1.0
    real[GAIN] += gain
    integers[GAINS] += 1


@njit(cache=True, nogil=True)
def _branch(store, integers, node, entry, share):
    """Make a node one child of its branching, on the side of its share, and a twin the other: both."""
    integers[FREE] -= 1
    twin = store.spare[integers[FREE]]
    first = 1 if share > 0.5 else -1
    store.fixes[twin] = store.fixes[node]
    store.shares[twin] = store.shares[node]
    store.lower[twin], store.owner[twin] = store.lower[node], store.owner[node]
    store.fixes[node, entry], store.fixes[twin, entry] = first, -first
    store.sides[node], store.sides[twin] = first * (entry + 1), -first * (entry + 1)
    store.parents[node] = 1.0 - share if first > 0 else share
    store.parents[twin] = 1.0 - store.parents[node]
    return twin, first


@njit(cache=True, nogil=True)
def _plunge(store, integers, node, twin, least):
    """Put a twin away and go on with the node, unless one that is open has a bound below `least`."""
    if integers[FREE] < integers[RESERVE]:
        stack(store.heap, integers, twin)
        integers[CURRENT] = node
        return
    push(store.heap, integers, store.lower, twin)
    if integers[HEAP] > 0 and store.lower[store.heap[0]] < least:
        push(store.heap, integers, store.lower, node)
    else:
        integers[CURRENT] = node


@njit(cache=True, nogil=True)
def grow(whole, store, log, integers, real, costs, incumbent, limit, probe, depth, worth, effort):
    """Process up to `limit` nodes; 0 when the tree is done, 1 when the slice is, 2 when memory is.

    Args:
        whole: the block.
        store: open nodes and splits.
        log: the proof, recorded if it has room for anything.
        integers: see `state`.
        real: see `state`.
        costs: `[4, n]` pseudo-cost sums and counts for pruning and for keeping.
        incumbent: `[n]` best decisions, 1.0 where kept.
        limit: nodes at most.
        probe: how often an entry is probed before its pseudo-costs are trusted.
        depth: entries fixed since the last split that make a new one worth a try; none if negative.
        worth: branchings between bound and cutoff, at the mean gain, that do.
        effort: Newton steps of a new split.
    """
    groups, n, columns = whole.part.B.shape
    recording = len(log.entry) > 0
    done, loaded = 0, -1
    free, model, keep = load(whole, store, 0)
    while done < limit and not whole.halt[0]:
        if _full(store, log, integers, n):
            return 2
        node = integers[CURRENT]
        if node < 0:
            node = take(store, integers, real)
            if node < 0:
                return 0
        integers[CURRENT] = -1
        done += 1
        integers[NODES] += 1
        if store.owner[node] != loaded:
            loaded = store.owner[node]
            free, model, keep = load(whole, store, loaded)
        f = len(free)
        L, K = np.empty((groups, f, f)), np.empty((f, f))
        q, s, best, trial = np.empty((groups, f, columns)), np.empty(f), np.empty((2, f)), np.empty(f)
        ordered = follow(store.fixes[node], whole.chains)
        fix, z, need = store.fixes[node][free], store.shares[node][free].astype(np.float64), keep.copy()
        for i in range(f):
            if fix[i] > 0:
                need[model.labels[i]] -= 1
        if not ordered or not possible(fix, model.labels, need):
            drop(store, integers, real, node, np.inf)
            continue
        before = fix.copy()
        left = settle(fix, model.labels, need)
        at, vector = 0, 0
        if recording:
            at = fork_fixed(log, integers, log.place[node], before, fix, free, IMPOSSIBLE)
        inherited = store.lower[node]
        own, _, steps = relax(model, need, fix, z, real[CUTOFF], 0.05, 25, L, q, s, best, whole.halt)
        integers[STEPS] += steps
        bound = max(own, inherited)
        if recording:
            vector = keep_shares(log, integers, best[1], free, store.roots[loaded], loaded)
            if own > inherited:
                log.vector[at] = vector
        if bound < real[CUTOFF]:
            _learn(store, integers, real, costs, node, bound - inherited)
        closed = bound >= real[CUTOFF]
        if not closed:
            round_shares(z, model.labels, keep, trial)
            value, _, rounding = evaluate(model, trial, L, q, s)
            if value < real[UPPER]:
                accept(real, value)
                spread(trial, free, store.roots[loaded], incumbent)
            if left == 0:
                closed = True
                if value - rounding > bound:
                    bound = value - rounding
                    if recording:
                        log.vector[at] = keep_shares(log, integers, trial, free, store.roots[loaded], loaded)
        if not closed:
            left, at = _decide(best[0], own, real, fix, model, need, free, log, integers, at, vector)
        gain = real[GAIN] / max(integers[GAINS], 1)
        wide = real[CUTOFF] - bound > worth * gain and integers[SPLITS] < len(store.roots)
        if not closed and left > 2 and groups == 1 and 0 <= depth <= f - left and wide:
            new = integers[SPLITS]
            best = np.empty((2, left))
            found = resplit(whole, store, loaded, fix, model, free, z, real[CUTOFF], effort, best, new)
            if found > bound:
                integers[SPLITS] += 1
                integers[MADE] += 1
                store.owner[node] = loaded = new
                free, model, keep = load(whole, store, new)
                bound, z, f, need = found, best[1].copy(), left, keep.copy()
                fix = np.zeros(f, np.int8)
                L, K = np.empty((groups, f, f)), np.empty((f, f))
                q, s, trial = np.empty((groups, f, columns)), np.empty(f), np.empty(f)
                if recording:
                    vector = keep_shares(log, integers, z, free, store.roots[new], new)
                    log.vector[at] = vector
                closed = bound >= real[CUTOFF]
                if not closed:
                    left, at = _decide(
                        best[0], bound, real, fix, model, need, free, log, integers, at, vector
                    )
        picked, kind = -1, 0
        halted = bool(whole.halt[0])
        if not closed and left > 0 and not halted:
            evaluate(model, z, L, q, s)
            sides = np.empty((2, 2, f))
            picked, kind, found = choose(
                model, free, need, fix, z, bound, real[CUTOFF], L, q, s, K, costs, probe, integers, sides,
                whole.halt,
            )  # fmt: skip
            if kind == 1:
                real[FLOOR] = min(real[FLOOR], found)
            if recording and kind > 0:
                root = store.roots[loaded]
                side = fix[picked] if kind == 1 else np.int8(1)
                vector = keep_shares(log, integers, sides[1 - (side + 1) // 2, 1], free, root, loaded)
                at = fork(log, integers, at, free[picked], side, vector)
                if kind == 2:
                    log.vector[at] = keep_shares(log, integers, sides[1, 1], free, root, loaded)
            if kind == 2:
                closed, bound = True, max(found, real[CUTOFF])
        if closed:
            drop(store, integers, real, node, bound)
            continue
        store.lower[node] = bound
        spread(z, free, store.roots[loaded], store.shares[node])
        store.fixes[node] = store.roots[loaded]
        for i in range(f):
            store.fixes[node, free[i]] = fix[i]
        if left == 0 or kind == 1 or halted:
            store.sides[node] = 0
            integers[CURRENT] = node
            if recording:
                log.place[node] = at
            continue
        entry = free[picked]
        twin, first = _branch(store, integers, node, entry, z[picked])
        if recording:
            log.place[node] = fork(log, integers, at, entry, first, log.vector[at])
            log.place[twin] = log.place[node] - 1
        _plunge(store, integers, node, twin, bound - 0.25 * (real[CUTOFF] - bound))
    return 1
