"""A tree's splits, compiled: the block as one of them sees it, and new ones for subtrees.

A split of the diagonal that was found for a block is valid below every node, but one found for what a node
leaves free bounds its subtree better.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.node.oracle import Model, best_sum, evaluate, formation, model_of
from solvers.bounds.node.resplit import improve
from solvers.bounds.node.restriction import restrict
from solvers.bounds.split import Split
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.runtime.compiled import njit


class Work(NamedTuple):
    """Room to compute in, for f entries.

    Attributes:
        L: `[g, f, f]` factors.
        q: `[g, f, c]` residuals.
        s: `[f]` scores.
        K: `[f, f]` second derivatives.
        best: `[2, f]` scores and shares of a relaxation's best bound.
        trial: `[f]` a rounded point.
        beside: factors, residuals and scores there.
        sides: `[2, 2, f]` the same as `best`, of a probe's two children: pruned, and kept.
    """

    L: Array
    q: Array
    s: Array
    K: Array
    best: Array
    trial: Array
    beside: tuple[Array, Array, Array]
    sides: Array


class View(NamedTuple):
    """The block as a split sees it: without the entries that were fixed when the split was made.

    Attributes:
        split: its place.
        root: `[n]` those fixings.
        free: `[f]` the entries left, which the others number from here on.
        model: them at the split.
        keep: `[pools]` of them to keep.
        work: room for every node that is looked at so.
    """

    split: int
    root: NDArray[np.int8]
    free: NDArray[np.int64]
    model: Model
    keep: NDArray[np.int64]
    work: Work


@njit(cache=True, nogil=True)
def load(part, store, split):
    """The `View` of a stored split."""
    root = store.roots[split]
    free, left = restrict(part, root)
    refit, R, B, constant, labels, keep = left
    groups, f, columns = B.shape
    d = np.empty((groups, f))
    for g in range(groups):
        for i in range(f):
            d[g, i] = store.d[split, g, free[i]]
            R[g, i, i] -= d[g, i]
    work = Work(
        np.empty((groups, f, f)), np.empty((groups, f, columns)), np.empty(f), np.empty((f, f)),
        np.empty((2, f)), np.empty(f),
        (np.empty((groups, f, f)), np.empty((groups, f, columns)), np.empty(f)), np.empty((2, 2, f)),
    )  # fmt: skip
    return View(np.int64(split), root, free, Model(refit, R, d, B, constant, labels), keep, work)


@njit(cache=True, nogil=True)
def resplit(search, store, view, fix, z, cutoff, new):
    """A split of a node's own, stored in place `new`: its bound, and `[2, left]` scores and shares there.

    Args:
        search: the block, and how hard to try.
        store: open nodes and splits.
        view: of the node's split so far.
        fix: fixings of what is free there.
        z: their shares.
        cutoff: a bound past it ends the work.
        new: place of the new split.
    """
    root, free, before = store.roots[new], view.free, view.model.d[0]
    root[:] = view.root
    f = len(free)
    d, start = np.empty(f), np.empty(f)
    count = 0
    for i in range(f):
        if fix[i] == 0:
            d[count], start[count] = before[i], z[i]
            count += 1
        else:
            root[free[i]] = fix[i]
    names, left = restrict(search.part, root)
    found = np.empty((2, count))
    bound, d = improve(
        left, d[:count], start[:count], cutoff, search.effort.steps, 0.1, 0.05, found, search.halt
    )
    store.d[new] = 0.0
    for i in range(count):
        store.d[new, 0, names[i]] = d[i]
    return bound, found


@njit(cache=True, nogil=True)
def spread(values, view, out):
    """`[n]` from values of what a view leaves free, and its fixings."""
    root, free = view.root, view.free
    for i in range(len(root)):
        out[i] = 1.0 if root[i] > 0 else 0.0
    for i in range(len(free)):
        out[free[i]] = values[i]


def at_root(block: Block, split: Split) -> tuple[float, float]:
    """The bound where the split's own relaxation ends, and the rounding in it."""
    n, pools = block.n, len(block.keep)
    model = model_of(block, split.d)
    L, q, s = np.empty_like(model.R), np.empty_like(model.B), np.empty(n)
    _, base, rounding = evaluate(model, split.z, L, q, s)
    best = best_sum(s, np.zeros(n, np.int8), block.labels, block.keep, np.empty(pools), np.empty(pools))
    bound = float(base - best - rounding)
    return -math.inf if math.isnan(bound) else bound, float(rounding)


def root_bound(block: Block, split: Split) -> float:
    """A bound from the split alone, without a tree."""
    return max(block.floor, at_root(block, split)[0] - formation(block, split.d))
