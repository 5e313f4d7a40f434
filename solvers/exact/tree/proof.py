"""The proof that a search leaves behind: recorded while it runs, then made into one that others can check.

A search logs its tree and the relaxed shares at which every bound was found; `testify` turns that into
splits, Lagrangian points and claims, and leaves out whatever no leaf needs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.cholesky import backward, forward
from solvers.bounds.node.oracle import factor
from solvers.certificate import IMPOSSIBLE, Proof, prove
from solvers.certificate.claims import CHUNK
from solvers.certificate.points import rounded
from solvers.exact.tree.store import Log, Store
from solvers.exact.tree.subtree import spread
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.runtime.compiled import njit


@njit(cache=True, nogil=True)
def keep_shares(log, state, view, z):
    """Record the shares z of what a view leaves free, where a bound was found; their row."""
    row = state.vectors
    state.vectors += 1
    spread(z, view, log.shares[row])
    log.split[row] = view.split
    return row


@njit(cache=True, nogil=True)
def fork(log, state, at, entry, side, vector):
    """Branch a tree node: its child on `side` goes on, the other one has the bound of `vector`."""
    first = state.tree
    state.tree += 2
    for child in (first, first + 1):
        log.entry[child] = log.pruned[child] = log.kept[child] = -1
    log.vector[first], log.vector[first + 1] = vector, log.vector[at]
    log.entry[at] = entry
    log.pruned[at] = first if side > 0 else first + 1
    log.kept[at] = first + 1 if side > 0 else first
    log.vector[at] = -1
    return first + 1


@njit(cache=True, nogil=True)
def fork_fixed(log, state, at, before, after, free, vector):
    """Branch on every entry that was free before and is fixed after; the node where it goes on."""
    for i in range(len(free)):
        if before[i] == 0 and after[i] != 0:
            at = fork(log, state, at, free[i], after[i], vector)
    return at


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
