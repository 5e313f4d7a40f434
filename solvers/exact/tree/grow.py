"""The tree of one block, compiled: best-first with plunging, in slices that Python can interrupt.

A node is bounded by its relaxation and rounded (a primal heuristic); what the bound decides is fixed
(reduced-cost fixing); a subtree that gains from it gets a split of its own; and what is left is branched on.
The search then plunges: it goes on with a child as long as its bound is near that of the best open node.
"""

from __future__ import annotations

import numpy as np

from solvers.bounds.node.newton import relax
from solvers.bounds.node.oracle import evaluate
from solvers.certificate import IMPOSSIBLE
from solvers.exact.tree.branching import CLOSED, FIXED, Node, choose, learn
from solvers.exact.tree.fixing import fix_by_scores, follow, possible, round_shares, settle
from solvers.exact.tree.proof import fork, fork_fixed, keep_shares
from solvers.exact.tree.store import accept, drop, push, stack, take
from solvers.exact.tree.subtree import load, resplit, spread
from solvers.runtime.compiled import njit

DONE, MORE, NO_ROOM = range(3)


@njit(cache=True, nogil=True)
def grow(search, store, log, state, limit):
    """Process up to `limit` nodes; says whether the tree is `DONE`, the slice is, or there is `NO_ROOM`.

    Args:
        search: the block, what is known of it, and how hard to work.
        store: open nodes and splits.
        log: the proof, recorded if it has room for anything.
        state: record of `STATE`.
        limit: nodes at most.
    """
    done = 0
    view = load(search.part, store, 0)
    while done < limit and not search.halt[0]:
        if _full(store, log, state):
            return NO_ROOM
        node = take(store, state)
        if node < 0:
            return DONE
        done += 1
        state.nodes += 1
        if store.owner[node] != view.split:
            view = load(search.part, store, store.owner[node])
        view = _process(search, store, log, state, view, node)
    return MORE


@njit(cache=True, nogil=True)
def _full(store, log, state):
    """Whether a node might not find room for what it stores, or be the last that does."""
    n = store.fixes.shape[1]
    if state.free < (2 if state.reserve else n + 8):
        return True
    if state.splits >= len(store.roots) and state.sparing <= state.nodes:
        return True
    if len(log.entry) == 0:
        return False
    return state.tree + 6 * n + 8 > len(log.entry) or state.vectors + 6 > len(log.shares)


@njit(cache=True, nogil=True)
def _process(search, store, log, state, view, place):
    """Bound the node of a place, fix what that decides, and close it or branch; the view it ended with."""
    recording = len(log.entry) > 0
    ordered = follow(store.fixes[place], search.chains)
    node, work = _open(store, view, place), view.work
    if not ordered or not possible(node.fix, view.model.labels, node.need):
        drop(store, state, place, np.inf)
        return view
    before = node.fix.copy()
    left = settle(node.fix, view.model.labels, node.need)
    at, vector = 0, 0
    if recording:
        at = fork_fixed(log, state, log.place[place], before, node.fix, view.free, IMPOSSIBLE)
    inherited = store.lower[place]
    own, _, steps = relax(
        view.model, node.need, node.fix, node.z, state.cutoff, 0.05, 25, work.L, work.q, work.s, work.best,
        search.halt,
    )  # fmt: skip
    state.steps += steps
    bound = max(own, inherited)
    if recording:
        vector = keep_shares(log, state, view, work.best[1])
        if own > inherited:
            log.vector[at] = vector
    closed = bound >= state.cutoff
    if not closed:
        if store.sides[place] != 0:
            _learn(search, store, state, place, bound - inherited)
        value = _round(search, state, view, node)
        closed = left == 0
        if closed and value > bound:
            bound = value
            if recording:
                log.vector[at] = keep_shares(log, state, view, work.trial)
    if not closed:
        left, at = _decide(log, state, view, node, work.best[0], own, at, vector)
        if left > 2 and _may_gain_from_a_split(search, store, state, view, left, bound):
            new = state.splits
            found, best = resplit(search, store, view, node.fix, node.z, state.cutoff, new)
            if found > bound:
                state.splits += 1
                state.made += 1
                store.owner[place] = new
                view, bound = load(search.part, store, new), found
                node, work = Node(np.zeros(left, np.int8), best[1].copy(), view.keep.copy()), view.work
                if recording:
                    vector = keep_shares(log, state, view, node.z)
                    log.vector[at] = vector
                closed = bound >= state.cutoff
                if not closed:
                    evaluate(view.model, node.z, work.L, work.q, work.s)
                    left, at = _decide(log, state, view, node, best[0], bound, at, vector)
    picked, kind = -1, 0
    halted = bool(search.halt[0])
    if not closed and left > 0 and not halted:
        picked, kind, found = choose(search, state, view, node, bound)
        if kind == FIXED:
            state.floor = min(state.floor, found)
        if recording and kind in (FIXED, CLOSED):
            side = node.fix[picked] if kind == FIXED else np.int8(1)
            vector = keep_shares(log, state, view, work.sides[1 - (side + 1) // 2, 1])
            at = fork(log, state, at, view.free[picked], side, vector)
            if kind == CLOSED:
                log.vector[at] = keep_shares(log, state, view, work.sides[1, 1])
        if kind == CLOSED:
            closed, bound = True, max(found, state.cutoff)
    if closed:
        drop(store, state, place, bound)
        return view
    _keep(store, view, node, place, bound)
    if recording:
        log.place[place] = at
    if left == 0 or kind == FIXED or halted:
        store.sides[place] = 0
        state.current = place
        return view
    entry = view.free[picked]
    twin, first = _branch(store, state, place, entry, node.z[picked])
    if recording:
        log.place[place] = fork(log, state, at, entry, first, log.vector[at])
        log.place[twin] = log.place[place] - 1
    _plunge(store, state, place, twin, bound - 0.25 * (state.cutoff - bound))
    return view


@njit(cache=True, nogil=True)
def _open(store, view, place):
    """The node of a place."""
    fix, need, labels = store.fixes[place][view.free], view.keep.copy(), view.model.labels
    for i in range(len(fix)):
        if fix[i] > 0:
            need[labels[i]] -= 1
    return Node(fix, store.shares[place][view.free].astype(np.float64), need)


@njit(cache=True, nogil=True)
def _keep(store, view, node, place, bound):
    """Put a node back into its place, with what is known of it now."""
    store.lower[place] = bound
    spread(node.z, view, store.shares[place])
    fixes, free, fix = store.fixes[place], view.free, node.fix
    fixes[:] = view.root
    for i in range(len(free)):
        fixes[free[i]] = fix[i]


@njit(cache=True, nogil=True)
def _learn(search, store, state, place, gain):
    """What the branching that made a node has gained: its entry's pseudo-costs, and the mean of all."""
    side = store.sides[place]
    learn(search.costs, abs(side) - 1, 0 if side < 0 else 1, gain, store.parents[place])
    state.gain += gain
    state.gains += 1


@njit(cache=True, nogil=True)
def _round(search, state, view, node):
    """Round a node's shares to a mask in `view.work.trial`, maybe a new incumbent; what it costs at least."""
    work = view.work
    round_shares(node.z, view.model.labels, view.keep, work.trial)
    L, q, s = work.beside
    value, _, rounding = evaluate(view.model, work.trial, L, q, s)
    if value < state.upper:
        accept(state, value)
        spread(work.trial, view, search.incumbent)
    return value - rounding


@njit(cache=True, nogil=True)
def _decide(log, state, view, node, scores, bound, at, vector):
    """Fix what scores and full pools decide: `(entries left, tree node)`."""
    before = node.fix.copy()
    removed = fix_by_scores(scores, bound, state.cutoff, node.fix, view.model.labels, node.need)
    state.floor = min(state.floor, removed)
    between = node.fix.copy()
    left = settle(node.fix, view.model.labels, node.need)
    if len(log.entry):
        at = fork_fixed(log, state, at, before, between, view.free, vector)
        at = fork_fixed(log, state, at, between, node.fix, view.free, IMPOSSIBLE)
    return left, at


@njit(cache=True, nogil=True)
def _may_gain_from_a_split(search, store, state, view, left, bound):
    """Whether enough is fixed since the last split, and the cutoff far enough, for another one."""
    depth, worth = search.effort.depth, search.effort.worth
    gain = state.gain / max(state.gains, 1)
    room = state.splits < len(store.roots) and len(view.model.d) == 1
    return room and 0 <= depth <= len(view.free) - left and state.cutoff - bound > worth * gain


@njit(cache=True, nogil=True)
def _branch(store, state, node, entry, share):
    """Make a node the child on the side of its share, and a twin the other one; `(twin, side)`."""
    state.free -= 1
    twin = store.spare[state.free]
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
def _plunge(store, state, node, twin, least):
    """Put a twin away and go on with the node, unless one that is open has a bound below `least`."""
    if state.free < state.reserve:
        stack(store, state, twin)
        state.current = node
        return
    push(store, state, twin)
    if state.heap > 0 and store.lower[store.heap[0]] < least:
        push(store, state, node)
    else:
        state.current = node
