"""A search's log made into a proof that others can check: full splits, points, and only what is needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.bounds.cholesky import backward, forward
from solvers.bounds.node.oracle import factor
from solvers.certificate import IMPOSSIBLE, Proof, prove
from solvers.certificate.claims import CHUNK
from solvers.certificate.points import rounded
from solvers.exact.tree.arrays import Store
from solvers.exact.tree.log import Log
from solvers.form.blocks import Block
from solvers.hessian import Array


def testify(block: Block, store: Store, log: Log, nodes: int) -> Proof:
    """The proof that a log of so many tree nodes holds.

    Points are `u = (R + diag(d / z))^-1 b` where entries have a share (joint), or `1 - z` (selection).
    """
    entry, vector = log.entry[:nodes].copy(), log.vector[:nodes].astype(np.int32)
    leaves = (entry < 0) & (vector != IMPOSSIBLE)
    used, vector[leaves] = np.unique(vector[leaves], return_inverse=True)
    splits, split = np.unique(np.append(0, log.split[used]), return_inverse=True)
    split = split[1:]
    d, root = store.d[splits], store.roots[splits]
    H, B = np.ascontiguousarray(block.H), np.ascontiguousarray(block.B)

    def exactly(some: slice) -> Array:
        """The points of some vectors in double precision."""
        shares: Array = log.shares[used[some]].astype(np.float64)
        if not block.refit:
            return (1.0 - shares)[:, None, :, None]
        u = np.zeros((len(shares), *block.B.shape))
        _points(H, B, d, split[some], shares, u)
        return u

    return prove(
        block, d, _shortened(exactly, (len(used), *block.B.shape)), exactly=exactly,
        root=root, split=split.astype(np.int32), entry=entry, vector=vector,
        pruned=log.pruned[:nodes].copy(), kept=log.kept[:nodes].copy(),
    )  # fmt: skip


def _shortened(exactly: Callable[[slice], Array], shape: tuple[int, ...]) -> NDArray[np.floating]:
    """All points in single precision, part by part, where it has room for them; else in double."""
    u: NDArray[np.floating] = np.empty(shape, np.float32)
    size = max(1, CHUNK // int(np.prod(shape[1:])))
    for start in range(0, shape[0], size):
        some = slice(start, start + size)
        part = rounded(exactly(some))
        if part.dtype != u.dtype:
            return exactly(slice(None))
        u[some] = part
    return u


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
