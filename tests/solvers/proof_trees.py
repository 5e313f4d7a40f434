"""Hand-made proofs: trees of a few levels over a block, as an exact search would leave them."""

import numpy as np

from solvers.blocks import blocks
from solvers.bounds.alternating import best_shares
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.split import split_blocks
from solvers.certificate import IMPOSSIBLE, prove
from solvers.reduction import reduce


def branch(block, split, depth):
    """Branch on the most fractional entry down to a depth; leaves take the better of two relaxed points."""
    tree, vectors = [], []

    def grow(fixed, level):
        node = len(tree)
        tree.append([-1, -1, -1, IMPOSSIBLE])
        kept = np.array([np.sum(fixed[block.labels == p] == 1) for p in range(len(block.keep))])
        gone = np.array([np.sum(fixed[block.labels == p] == -1) for p in range(len(block.keep))])
        if (kept > block.keep).any() or (gone > block.prune).any():
            return node
        free = np.flatnonzero(fixed == 0)
        if level == depth or not len(free):
            tree[node][3] = len(vectors)
            z = restricted(block, split.d, split.z, fixed)
            near = [relaxed_point(block, split.d, share) for share in (z, split.z)]
            fixings = {"kept": fixed == 1, "pruned": fixed == -1}
            vectors.append(max(near, key=lambda u: lower_bound(block, split.d, u, **fixings)))
            return node
        entry = free[np.argmin(np.abs(split.z[free] - 0.5))]
        children = []
        for mark in (-1, 1):
            fixed[entry] = mark
            children.append(grow(fixed, level + 1))
        fixed[entry] = 0
        tree[node][:3] = [entry, *children]
        return node

    grow(np.zeros(block.n, dtype=np.int64), 0)
    entry, pruned, kept, vector = np.array(tree, dtype=np.int32).T
    return prove(
        block, split.d, np.array(vectors), entry=entry, pruned=pruned, kept=kept, vector=vector
    )  # fmt: skip


def restricted(block, d, z, fixed, steps=30):
    """Relaxed shares that respect fixings, by turns: the point of shares, the best shares of a point."""
    out = np.where(fixed == 0, z, fixed == 1).astype(float)
    for _ in range(steps if block.refit else 1):
        point = relaxed_point(block, d, out)
        size = np.sqrt((d[:, :, None] * point**2).sum(axis=(0, 2))) if block.refit else out
        for p, keep in enumerate(block.keep):
            free = np.flatnonzero((block.labels == p) & (fixed == 0))
            left = keep - np.sum(fixed[block.labels == p] == 1)
            out[free] = best_shares(size[free], left) if left else 0.0
    return out


def chain(block, split, count):
    """Entries fixed one after another, each with a leaf on the side; all leaves share one vector."""
    order = np.argsort(np.abs(split.z - 0.5))[:count]
    entry = np.full(2 * count + 1, -1, np.int32)
    pruned, kept, vector = entry.copy(), entry.copy(), np.zeros(2 * count + 1, np.int32)
    for i, j in enumerate(order):
        entry[2 * i] = j
        pruned[2 * i], kept[2 * i] = (2 * i + 1, 2 * i + 2) if split.z[j] > 0.5 else (2 * i + 2, 2 * i + 1)
    u = relaxed_point(block, split.d, split.z)[None]
    return prove(block, split.d, u, entry=entry, pruned=pruned, kept=kept, vector=vector)


def tree_proofs(problem, depth, counts=None):
    """A tree of every block of a problem's reduction (at given counts of its rows)."""
    found = blocks(reduce(problem).problem, counts)
    return [branch(b, s, depth) for b, s in zip(found, split_blocks(found), strict=True)]
