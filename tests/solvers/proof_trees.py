"""Hand-made proofs: trees of a few levels over a block, as an exact search would leave them."""

import numpy as np
import torch

from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.split import split_blocks
from solvers.bounds.waterfill import fill
from solvers.certificate import IMPOSSIBLE, prove
from solvers.certificate.proof import leaf_fixings
from solvers.form.blocks import Block, blocks
from solvers.form.reduction import reduce


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
            slope = torch.tensor(size[None, free] + 1e-300)
            out[free] = (
                fill(torch.zeros_like(slope), slope, torch.tensor([[float(left)]]))[0][0] if left else 0.0
            )
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


def remainder(block, fixed):
    """A block of one curvature without its fixed entries: a Schur complement, or constants moved over."""
    free, H, B = fixed == 0, block.H[0], block.B[0]
    gone = fixed == (1 if block.refit else -1)
    A, C = H[np.ix_(free, free)], H[np.ix_(free, gone)]
    labels = block.labels[free]
    keep = np.array([k - np.sum((block.labels == p) & (fixed == 1)) for p, k in enumerate(block.keep)])
    if not block.refit:
        shifted = B[free] - C.sum(axis=1, keepdims=True)
        return Block(False, A[None], shifted[None], block.W[:, free], 0.0, labels, keep, block.rows)
    X = np.linalg.solve(H[np.ix_(gone, gone)], C.T)
    S, b = A - C @ X, B[free] - X.T @ B[gone]
    S = 0.5 * (S + S.T)
    w = np.linalg.solve(S, b)
    return Block(True, S[None], b[None], w[None], 0.5 * float((w * b).sum()), labels, keep, block.rows)


def branch_and_split(block, split, depth):
    """As `branch`, with a split of its own for every leaf whose pools are all left a choice."""
    proof = branch(block, split, depth)
    d, root, owner, points = [split.d], [np.zeros(block.n, np.int8)], [], []
    for node, fixed in zip(*leaf_fixings(proof, block.n), strict=True):
        if proof.vector[node] == IMPOSSIBLE:
            continue
        free, vector = fixed == 0, proof.u[proof.vector[node]]
        owner.append(0)
        rest = remainder(block, fixed)
        if not rest.trivial:
            own = split_blocks([rest])[0]
            d.append(np.full_like(split.d, np.nan))
            d[-1][:, free] = own.d
            root.append(fixed)
            owner[-1] = len(d) - 1
            vector = np.full_like(vector, np.nan)
            vector[:, free] = relaxed_point(rest, own.d, own.z)
        points.append((proof.vector[node], vector))
    order = [vector for _, vector in sorted(points, key=lambda pair: pair[0])]
    owner = np.array(owner, np.int32)[np.argsort([at for at, _ in points])]
    return prove(
        block, np.array(d), np.array(order), entry=proof.entry, pruned=proof.pruned, kept=proof.kept,
        vector=proof.vector, root=np.array(root), split=owner,
    )  # fmt: skip


def tree_proofs(problem, depth, counts=None, *, grow=branch):
    """A tree of every block of a problem's reduction (at given counts of its rows)."""
    found = blocks(reduce(problem).problem, counts)
    return [grow(b, s, depth) for b, s in zip(found, split_blocks(found), strict=True)]
