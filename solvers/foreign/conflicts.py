"""Small reasons why a mask is too dear: conflict analysis by deletion, compiled.

All entries of a mask are fixed at first, where the relaxation is its exact cost. Then one fixing after the
other is taken back for as long as the relaxation's bound stays at what no better mask may cost. The few
fixings that are left make a clause that every better mask satisfies (a combinatorial Benders cut; Hooker &
Ottosson 2003), and the relaxation's point is one where a tangent cuts off all that the clause does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.node.newton import relax
from solvers.bounds.node.oracle import best_sum
from solvers.hessian import Array
from solvers.runtime.compiled import njit

STEPS = 30
"""Newton steps of one relaxation at most."""
LOOSE = 1e9
"""A relaxation whose value can't reach the cutoff is left at once."""


@njit(cache=True, nogil=True)
def needed(keep, labels, fix):
    """`[pools]` entries still to keep; -1 in the first where the fixings can't be met."""
    need = keep.copy()
    room = np.zeros(len(keep), np.int64)
    for i in range(len(fix)):
        if fix[i] > 0:
            need[labels[i]] -= 1
        elif fix[i] == 0:
            room[labels[i]] += 1
    for p in range(len(keep)):
        if need[p] < 0 or need[p] > room[p]:
            need[0] = -1
            return need
    return need


@njit(cache=True, nogil=True)
def shrink(model, keep, fix, order, cutoff, halt):
    """Take fixings back, in order, while the bound stays at the cutoff: `[n]` the relaxation's shares.

    Args:
        model: the block, see `solvers.bounds.node.oracle`.
        keep: `[pools]` entries to keep.
        fix: `[n]` a mask, 1 kept and -1 pruned; what is taken back becomes 0.
        order: `[n]` entries, those to take back first first.
        cutoff: what the bound must not fall below.
        halt: `[1]` set to end the work soon.
    """
    n = len(fix)
    labels = model.labels
    L = np.empty(model.R.shape)
    q = np.empty(model.B.shape)
    s = np.empty(n)
    best = np.empty((2, n))
    inner, outer = np.empty(len(keep)), np.empty(len(keep))
    z = np.empty(n)
    for i in range(n):
        z[i] = 1.0 if fix[i] > 0 else 0.0
    scores = np.empty(n)
    level = 0.0
    known = False
    for i in order:
        side = fix[i]
        if side == 0:
            continue
        fix[i] = 0
        need = needed(keep, labels, fix)
        if need[0] < 0:
            fix[i] = side
            continue
        if known and level - best_sum(scores, fix, labels, need, inner, outer) >= cutoff:
            continue
        trial = z.copy()
        bound, _, _ = relax(model, need, fix, trial, cutoff, LOOSE, STEPS, L, q, s, best, halt)
        if bound >= cutoff:
            known = True
            scores[:] = best[0]
            z[:] = best[1]
            level = bound + best_sum(scores, fix, labels, need, inner, outer)
        else:
            fix[i] = side
    return z


@njit(cache=True, nogil=True)
def neighbour(model, keep, fix, start, halt):
    """`[n]` the shares of the relaxation under fixings that can be met."""
    n = len(fix)
    need = needed(keep, model.labels, fix)
    z = start.copy()
    best = np.empty((2, n))
    relax(
        model, need, fix, z, np.inf, 0.05, STEPS, np.empty(model.R.shape), np.empty(model.B.shape),
        np.empty(n), best, halt,
    )  # fmt: skip
    return z


def regrets(
    scores: Array, labels: NDArray[np.int64], keep: NDArray[np.int64], kept: NDArray[np.bool_]
) -> Array:
    """`[n]` by how much a bound at fixed scores falls when an entry's fixing is taken back.

    Args:
        scores: `[n]` what an entry takes off the bound when it is kept.
        labels: `[n]` its pool.
        keep: `[pools]` entries to keep.
        kept: `[n]` which are fixed to be kept; the others are fixed to be pruned.
    """
    lost = np.zeros(len(scores))
    for p, count in enumerate(keep.tolist()):
        pool = np.flatnonzero(labels == p)
        ranked = np.sort(scores[pool])[::-1]
        level = ranked[count - 1] if count else np.inf
        lost[pool] = np.maximum(np.where(kept[pool], level - scores[pool], scores[pool] - level), 0.0)
    return lost
