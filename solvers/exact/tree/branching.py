"""Where to branch: pseudo-costs, started from second derivatives and made reliable by probing.

Reliability branching: what branching on an entry gains is learnt from the branchings so far (pseudo-costs,
Benichou et al. 1971), and until an entry has enough of them both of its children are bounded on trial
(strong branching; Achterberg et al. 2005). An entry never seen before starts from `stiffness`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.cholesky import factorise, half_inverse
from solvers.bounds.node.newton import relax
from solvers.bounds.node.oracle import curvature
from solvers.hessian import Array
from solvers.runtime.compiled import njit

FRACTIONAL = 1e-6
"""Shares nearer than this to 0 or 1 count as decided when branching."""
PROBED = 8
"""Entries probed at one node at most."""
STALE = 4
"""Entries probed in a row without a better score, after which the others are not."""

BRANCH, FIXED, CLOSED = range(3)


class Node(NamedTuple):
    """A node in the numbering of its split's view.

    Attributes:
        fix: `[f]` 1 kept, -1 pruned, 0 free.
        z: `[f]` shares.
        need: `[pools]` free entries still to keep.
    """

    fix: NDArray[np.int8]
    z: Array
    need: NDArray[np.int64]


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
    factorise(A, w, 1e-12)
    half = half_inverse(A, w)
    out, line = np.empty(w), np.empty(w)
    first = 0
    while first < w:
        last = first
        while last < w and labels[candidates[last]] == labels[candidates[first]]:
            last += 1
        total = 0.0
        for k in range(w):
            line[k] = half[k, first:last].sum()
            total += line[k] * line[k]
        for i in range(first, last):
            own = lean = 0.0
            for k in range(i, w):
                own += half[k, i] * half[k, i]
                lean += half[k, i] * line[k]
            share = own - lean * lean / total if total > 0 else own
            out[i] = 0.5 / max(share, 1e-12 * own + 1e-300)
        first = last
    return out


@njit(cache=True, nogil=True)
def choose(search, state, view, node, bound):
    """The entry to branch on: `(entry, kind, bound)`.

    `BRANCH`: there. `FIXED`: probing fixed the entry in `node.fix`, as the other side has that bound: look at
    the node again. `CLOSED`: both sides are past the cutoff, and the bound is the lesser one.
    `view.work.sides` holds the last probe's children.
    """
    fix, z, names, costs = node.fix, node.z, view.free, search.costs
    candidates, count = np.empty(len(z), np.int64), 0
    for i in range(len(z)):
        if fix[i] == 0 and FRACTIONAL < z[i] < 1.0 - FRACTIONAL:
            candidates[count] = i
            count += 1
    candidates = candidates[:count]
    if count == 0:
        return _nearest_to_a_choice(node, view.work.s), BRANCH, bound
    score = _scores(state, view, z, bound, candidates, costs)
    order = np.argsort(-score)
    best, picked = -1.0, candidates[order[0]]
    room, probed, stale = state.cutoff - bound, 0, 0
    floor = 1e-6 * room
    child = Node(np.empty_like(fix), np.empty_like(z), np.empty_like(node.need))
    for k in order:
        i = candidates[k]
        known = min(costs[1, names[i]], costs[3, names[i]])
        if known >= search.effort.probe or probed >= PROBED or stale >= STALE or search.halt[0]:
            if score[k] > best:
                best, picked = score[k], i
            continue
        probed += 1
        down, up = _probe(search, state, view, node, child, bound, i)
        if down >= room and up >= room:
            return i, CLOSED, bound + min(down, up)
        if down >= room or up >= room:
            fix[i] = 1 if down >= room else -1
            return i, FIXED, bound + max(down, up)
        result = max(down, floor) * max(up, floor)
        if result > best:
            best, picked, stale = result, i, 0
        else:
            stale += 1
    return picked, BRANCH, bound


@njit(cache=True, nogil=True)
def _nearest_to_a_choice(node, s):
    """Where all shares are decided: the free entry whose score speaks least for its side."""
    fix, z = node.fix, node.z
    picked, nearest = -1, np.inf
    for i in range(len(s)):
        if fix[i] == 0:
            distance = -s[i] if z[i] < 0.5 else s[i]
            if picked < 0 or distance < nearest:
                picked, nearest = i, distance
    return picked


@njit(cache=True, nogil=True)
def _scores(state, view, z, bound, candidates, costs):
    """The product of what pruning and keeping each candidate should gain, as far as the cutoff."""
    work, names = view.work, view.free
    stiff = np.zeros(len(candidates))
    for i in candidates:
        if min(costs[1, names[i]], costs[3, names[i]]) == 0.0:
            stiff[:] = stiffness(view.model, z, work.L, work.q, candidates, work.K)
            break
    score, room = np.empty(len(candidates)), state.cutoff - bound
    floor = 1e-6 * room
    for k in range(len(candidates)):
        i = candidates[k]
        name = names[i]
        down, up = stiff[k] * z[i] ** 2, stiff[k] * (1.0 - z[i]) ** 2
        if costs[1, name] > 0:
            down = z[i] * costs[0, name] / costs[1, name]
        if costs[3, name] > 0:
            up = (1.0 - z[i]) * costs[2, name] / costs[3, name]
        score[k] = max(min(down, room), floor) * max(min(up, room), floor)
    return score


@njit(cache=True, nogil=True)
def _probe(search, state, view, node, child, bound, i):
    """What pruning and keeping an entry gain, by a few Newton steps each; its pseudo-costs learn it."""
    work = view.work
    down = up = 0.0
    for side in range(2):
        child.fix[:], child.z[:], child.need[:] = node.fix, node.z, node.need
        child.fix[i] = 2 * side - 1
        child.need[view.model.labels[i]] -= side
        found, _, _ = relax(
            view.model, child.need, child.fix, child.z, state.cutoff, 0.2, 3, work.L, work.q, work.s,
            work.sides[side], search.halt,
        )  # fmt: skip
        state.probes += 1
        gain = max(found - bound, 0.0)
        learn(search.costs, view.free[i], side, gain, node.z[i] if side == 0 else 1.0 - node.z[i])
        if side == 0:
            down = gain
        else:
            up = gain
    return down, up


@njit(cache=True, nogil=True)
def learn(costs, entry, side, gain, share):
    """Add to an entry's pseudo-costs what pruning (side 0) or keeping it (1) gained, per share moved."""
    costs[2 * side, entry] += gain / max(share, 1e-3)
    costs[2 * side + 1, entry] += 1.0
