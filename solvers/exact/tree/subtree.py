"""A tree's splits, compiled: the block as one of them sees it, and new ones for subtrees."""

from __future__ import annotations

import numpy as np
from numba import njit

from solvers.bounds.node.oracle import Model
from solvers.bounds.node.resplit import improve
from solvers.bounds.node.restriction import restrict


@njit(cache=True, nogil=True)
def load(whole, store, split):
    """`(free, model, need)` of the block restricted to what a split's root leaves free."""
    free, left = restrict(whole.part, store.roots[split])
    refit, R, B, constant, labels, need = left
    d = np.empty((len(R), len(free)))
    for g in range(len(R)):
        for i in range(len(free)):
            d[g, i] = store.d[split, g, free[i]]
            R[g, i, i] -= d[g, i]
    return free, Model(refit, R, d, B, constant, labels), need


@njit(cache=True, nogil=True)
def resplit(whole, store, split, fix, model, free, z, cutoff, effort, found, new):
    """A split of a node's own, stored in place `new`: its bound, with scores and shares in found.

    Args:
        whole: the block.
        store: open nodes and splits.
        split: the node's split so far.
        fix: fixings of what is free there.
        model: the block at that split.
        free: entries of the block that are free there.
        z: their shares.
        cutoff: a bound past it ends the work.
        effort: Newton steps.
        found: `[2, f]` for the f entries that the node leaves free.
        new: place of the new split.
    """
    root = store.roots[new]
    root[:] = store.roots[split]
    f = len(free)
    d, start = np.empty(f), np.empty(f)
    count = 0
    for i in range(f):
        if fix[i] == 0:
            d[count], start[count] = model.d[0, i], z[i]
            count += 1
        else:
            root[free[i]] = fix[i]
    names, left = restrict(whole.part, root)
    bound, d = improve(left, d[:count], start[:count], cutoff, effort, 0.1, 0.05, found, whole.halt)
    store.d[new] = 0.0
    for i in range(count):
        store.d[new, 0, names[i]] = d[i]
    return bound


@njit(cache=True, nogil=True)
def spread(values, free, root, out):
    """`[n]` from values of free entries and the fixings of a root."""
    for i in range(len(root)):
        out[i] = 1.0 if root[i] > 0 else 0.0
    for i in range(len(free)):
        out[free[i]] = values[i]
