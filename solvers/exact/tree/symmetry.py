"""Entries of a block that are interchangeable, or worse than another whatever else is pruned.

Let i and j share a pool, and let swapping their roles in any mask that prunes j and keeps i never raise
the cost. Then some best mask does not prune j while it keeps i: swap them where it does. Two cases hold
exactly, for the numbers as they are stored:

    copies    the curvature is unchanged when rows and columns i and j change places, and so are the
              weights (joint) or linear terms (selection): swapping changes no cost at all
    isolated  rows i and j of the curvature are zero off the diagonal, so that pruning them costs `c_i` and
              `c_j` whatever else is pruned, and `c_j >= c_i`: swapping gains `c_j - c_i`

In a chain `e_1, e_2, ...` of copies, or of isolated entries by falling cost, every pair of neighbours is
such a pair with `j` before `i`. Sorting what a mask does along each chain, kept entries first, is a series
of such swaps; so some best mask has all its chains sorted, and a search may leave out all others. Chains
share no entries, so that sorting one leaves the others as they are; and sorting a chain keeps every pool's
count. What a bound says of sorted masks it then says of all.

Duplicate inputs with equal weights are copies; dead inputs are isolated, and so are the zero weights of a
selection.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from solvers.form.blocks import Block
from solvers.hessian import Array


def chains(block: Block) -> NDArray[np.int64]:
    """Chains of two and more entries, each in its order and followed by -1."""
    alone = _isolated(block.H)
    found: list[list[int]] = []
    for p in range(len(block.keep)):
        pool = block.labels == p
        members = np.flatnonzero(pool & alone).tolist()
        cost = {i: _cost(block, i) for i in members}
        found.append(sorted(members, key=lambda i: (-cost[i], i)))
        found += _copies(block, np.flatnonzero(pool & ~alone))
    return np.array([i for chain in found if len(chain) > 1 for i in [*chain, -1]], np.int64)


def _isolated(H: Array) -> NDArray[np.bool_]:
    linked = H != 0.0
    return np.asarray(~(linked & ~np.eye(H.shape[1], dtype=bool)).any(axis=(0, 2)))


def _cost(block: Block, i: int) -> Fraction | float:
    """Twice what pruning an isolated entry costs, without rounding."""
    if not block.refit:
        own, linear = float(block.H[0, i, i]), float(block.B[0, i, 0])
        return Fraction(own) - 2 * Fraction(linear) if linear else own
    pairs = zip(block.H[:, i, i].tolist(), block.W[:, i].tolist(), strict=True)
    return sum((Fraction(h) * Fraction(w) ** 2 for h, row in pairs for w in row), Fraction(0))


def _copies(block: Block, members: NDArray[np.int64]) -> list[list[int]]:
    """Orbits of the swaps that leave the block as it is; swaps compose, so one entry stands for its orbit."""
    H, side = block.H, block.W if block.refit else block.B
    own = H[0, members, members]
    if len(np.unique(own)) == len(own):
        return []
    corner = [H[:, i, i].tobytes() + side[:, i].tobytes() for i in members.tolist()]
    twice = Counter(corner)
    alike: dict[bytes, list[list[int]]] = {}
    for i, start in zip(members.tolist(), corner, strict=True):
        if twice[start] == 1:
            continue
        key = start + np.sort(H[:, i], axis=1).tobytes()
        orbits = alike.setdefault(key, [])
        for orbit in orbits:
            if _interchangeable(H, orbit[0], i):
                orbit.append(i)
                break
        else:
            orbits.append([i])
    return [orbit for orbits in alike.values() for orbit in orbits]


def _interchangeable(H: Array, i: int, j: int) -> bool:
    others = np.ones(H.shape[1], dtype=bool)
    others[[i, j]] = False
    rows = (H[:, i, others] == H[:, j, others]).all() and (H[:, others, i] == H[:, others, j]).all()
    return bool(rows and (H[:, i, i] == H[:, j, j]).all() and (H[:, i, j] == H[:, j, i]).all())
