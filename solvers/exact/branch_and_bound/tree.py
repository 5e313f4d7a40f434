"""The tree of one block, compiled: best-first with plunging, in slices that Python can interrupt."""

from __future__ import annotations

import numpy as np
from numba import njit

from solvers.bounds.newton import relax
from solvers.bounds.oracle import evaluate
from solvers.exact.branch_and_bound.branching import choose
from solvers.exact.branch_and_bound.fixing import fix_by_scores, round_shares, settle
from solvers.exact.branch_and_bound.state import (
    CURRENT,
    CUTOFF,
    FLOOR,
    FREE,
    HEAP,
    NODES,
    STEPS,
    UPPER,
    accept,
    pop,
    push,
)


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
