"""A search's log made into a proof that others can check: full splits, points, and only what is needed."""

from __future__ import annotations

import numpy as np
from numba import njit

from solvers.blocks import Block
from solvers.bounds.cholesky import backward, forward
from solvers.bounds.node.oracle import factor
from solvers.certificate import IMPOSSIBLE, Proof, prove
from solvers.exact.branch_and_bound.arrays import Store
from solvers.exact.branch_and_bound.log import Log


def testify(block: Block, store: Store, log: Log, nodes: int) -> Proof:
    """The proof that a log of so many tree nodes holds.

    Points are `u = (R + diag(d / z))^-1 b` where entries have a share (joint), or `1 - z` (selection).
    """
    entry, vector = log.entry[:nodes].copy(), log.vector[:nodes].astype(np.int32)
    leaves = (entry < 0) & (vector != IMPOSSIBLE)
    used, vector[leaves] = np.unique(vector[leaves], return_inverse=True)
    shares = log.shares[used].astype(np.float64)
    splits, split = np.unique(np.append(0, log.split[used]), return_inverse=True)
    split = split[1:]
    d, root = store.d[splits], store.roots[splits]
    if block.refit:
        u = np.zeros((len(used), *block.B.shape))
        _points(np.ascontiguousarray(block.H), np.ascontiguousarray(block.B), d, split, shares, u)
    else:
        u = (1.0 - shares)[:, None, :, None]
    return prove(
        block, d, u, root=root, split=split.astype(np.int32), entry=entry, vector=vector,
        pruned=log.pruned[:nodes].copy(), kept=log.kept[:nodes].copy(),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _points(H, B, d, split, shares, u):
    """`u = (R + diag(d / z))^-1 b` on the entries with a share, for every row of shares."""
    groups, n, columns = B.shape
    L, v = np.empty((n, n)), np.empty(n)
    for k in range(len(shares)):
        active = np.flatnonzero(shares[k] > 0.0)
        a = len(active)
        for g in range(groups):
            R = H[g].copy()
            for i in range(n):
                R[i, i] -= d[split[k], g, i]
            factor(R, d[split[k], g], shares[k], active, L)
            for c in range(columns):
                for i in range(a):
                    v[i] = B[g, active[i], c]
                forward(L, v, a)
                backward(L, v, a)
                for i in range(a):
                    u[k, g, active[i], c] = v[i]
