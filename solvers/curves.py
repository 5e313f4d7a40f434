"""Row curves: what it costs to prune k weights of a row, for every k at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import scipy.linalg
from numba import njit
from numpy.typing import ArrayLike, NDArray

from solvers.bounds.cholesky import FLAGS
from solvers.hessian import Array, Hessian, as_hessian
from solvers.parallel import side_by_side, workers
from solvers.problem import Mask

BLOCK = 32
"""Eliminations between two updates of the trailing matrix."""
STRIP = 256
"""Rows of the trailing matrix that are updated by one product."""
MEMORY = 2 << 30
"""Bytes that the matrices of the rows in work may take by default."""


@dataclass(frozen=True)
class RowCurves:
    """Greedy values and certified lower bounds of every row at every k.

    Attributes:
        values: `[m, n + 1]` cost of pruning the first k entries of `order`.
        order: `[m, n]` entries in the order greedy prunes them.
        lower: `[m, n + 1]` valid lower bound for every k, or None when not asked for.
    """

    values: Array
    order: NDArray[np.int64]
    lower: Array | None = None

    def masks(self, counts: ArrayLike) -> NDArray[np.bool_]:
        """`[m, n]` masks that prune the first `counts[r]` entries of each row's order."""
        m, n = self.order.shape
        mask = np.zeros((m, n), dtype=bool)
        counts = np.broadcast_to(np.asarray(counts), (m,))
        np.put_along_axis(mask, self.order, np.arange(n)[None, :] < counts[:, None], axis=1)
        return mask


def row_curves(
    weights: ArrayLike,
    hessian: ArrayLike | Hessian,
    *,
    refit: bool = True,
    gradient: Array | None = None,
    bounds: bool = False,
    device: str = "cpu",
    memory: int = MEMORY,
) -> RowCurves:
    """Greedy pruning of every row from nothing to everything.

    Joint: the weight of least OBS saliency `w^_j^2 / (2 T_jj)` goes next, and the survivors move
    (OBC, Frantar & Alistarh 2022, without its approximations). Selection: the weight that adds least
    to `1/2 w_P' H_PP w_P - g_P' w_P` goes next.

    Args:
        weights: `W [m, n]`.
        hessian: `[n, n]`, `[m, n, n]` or a `Hessian`; positive definite when `refit`.
        refit: whether survivors move.
        gradient: `G [m, n]` of a selection problem, or None for zero.
        bounds: also compute `lower`.
        device: torch device for the bounds.
        memory: bytes that joint elimination may take beyond curvature and curves: a matrix `[n, n]` for
            every row in work, of which there is at least one, and the inverse of a shared curvature.

    Raises:
        ValueError: as `SubsetProblem` does.
    """
    W = np.ascontiguousarray(weights, dtype=np.float64)
    m, n = W.shape
    H = as_hessian(hessian, m, n, definite=refit)
    values, order = np.zeros((m, n + 1)), np.zeros((m, n), np.int64)
    one_pool, everything = np.zeros(n, np.int64), np.array([n])
    linear = np.zeros((m, n)) if gradient is None else gradient * W
    if refit:
        inverses = _Inverses(H, m, memory)

        def row(r: int) -> None:
            with inverses.of(r) as T:
                _eliminate(T, W[r], BLOCK, one_pool, everything, order[r], values[r])
    else:

        def row(r: int) -> None:
            _accumulate(H.dense(r), W[r], linear[r], one_pool, everything, order[r], values[r])

    side_by_side(row, range(m))
    lower = None
    if bounds:
        from solvers.bounds.curves import lower_curves

        lower = lower_curves(W, H, gradient, refit=refit, device=device)
        np.minimum(lower, values, out=lower)
    return RowCurves(values, order, lower)


def greedy_in_pools(
    W: Array,
    H: Hessian,
    labels: NDArray[np.int64],
    prune: NDArray[np.int64],
    *,
    refit: bool = True,
    gradient: Array | None = None,
    memory: int = MEMORY,
) -> Mask:
    """`[m, n]` mask of greedy pruning, row by row, that takes `prune[p]` entries of every pool p.

    Args:
        W: `[m, n]`.
        H: curvature, positive definite when `refit`.
        labels: `[m, n]` pools, each within a row.
        prune: `[pools]` entries to take.
        refit: whether survivors move.
        gradient: `[m, n]` of a selection problem, or None for zero.
        memory: bytes; see `row_curves`.
    """
    mask = np.zeros(W.shape, dtype=bool)
    inverses = _Inverses(H, len(W), memory) if refit else None

    def row(r: int) -> None:
        order, values = np.zeros(H.n, np.int64), np.zeros(H.n + 1)
        first, w = labels[r].min(), np.ascontiguousarray(W[r])
        pools, quota = labels[r] - first, prune[first : labels[r].max() + 1]
        if inverses is None:
            linear = np.zeros(H.n) if gradient is None else gradient[r] * w
            taken = _accumulate(H.dense(r), w, linear, pools, quota, order, values)
        else:
            with inverses.of(r) as T:
                taken = _eliminate(T, w, BLOCK, pools, quota, order, values)
        mask[r, order[:taken]] = True

    side_by_side(row, range(len(W)))
    return mask


class _Inverses:
    """Copies of the rows' inverse curvatures, as many at a time as `memory` has room for."""

    def __init__(self, H: Hessian, rows: int, memory: int) -> None:
        self._hessian, self._shared = H, invert(H.dense(0)) if H.shared else None
        fit = memory // (8 * H.n**2) - (1 if H.shared else 0)
        self._free: SimpleQueue[Array | None] = SimpleQueue()
        for _ in range(max(1, min(rows, workers(), fit))):
            self._free.put(None)

    @contextmanager
    def of(self, r: int) -> Iterator[Array]:
        """`[n, n]` inverse of a row's curvature, to be written over; waits until there is room."""
        room = self._free.get()
        try:
            if self._shared is None:
                room = None
                yield invert(self._hessian.dense(r))
            else:
                room = np.empty_like(self._shared) if room is None else room
                np.copyto(room, self._shared)
                yield room
        finally:
            self._free.put(room)


def invert(A: Array) -> Array:
    """The inverse of a positive definite matrix, symmetric to the last bit; takes no room beyond it."""
    L, info = scipy.linalg.lapack.dpotrf(np.asarray(A).T, lower=1, clean=0)
    if info == 0:
        inverse, info = scipy.linalg.lapack.dpotri(L, lower=1, overwrite_c=1)
    if info != 0:
        raise ValueError("hessian is singular; add damping to its diagonal")
    _mirror(inverse.T)
    return np.asarray(inverse.T)


@njit(cache=True, nogil=True)
def _mirror(C):  # type: ignore[no-untyped-def]
    """Write the upper triangle into the lower one, tile by tile."""
    n = len(C)
    for first in range(0, n, BLOCK):
        for i in range(first, n):
            for j in range(first, min(first + BLOCK, i)):
                C[i, j] = C[j, i]


@njit(cache=True, nogil=True)
def _eliminate(T, weights, block, labels, quota, order, values):  # type: ignore[no-untyped-def]
    """Greedy elimination with the trailing update `T -= V V'` delayed by `block` steps.

    T starts as the inverse curvature and is worked in: its leading part is what is left of it. No more
    than `quota[p]` entries of pool p are taken; how many were in all is returned.
    """
    n = len(weights)
    quota = quota.copy()
    alive = np.arange(n)
    w = weights.copy()
    done = 0
    while done < n:
        size = len(alive)
        steps = min(block, size)
        V = np.zeros((steps, size))
        diagonal = np.empty(size)
        for i in range(size):
            diagonal[i] = T[i, i]
        gone = np.zeros(size, np.bool_)
        for s in range(steps):
            best, j = np.inf, -1
            for i in range(size):
                if not gone[i] and quota[labels[alive[i]]] > 0:
                    saliency = w[i] * w[i] / diagonal[i]
                    if saliency < best or j < 0:
                        best, j = saliency, i
            if j < 0:
                return done
            pivot = diagonal[j]
            column = T[j, :size].copy()
            for t in range(s):
                column -= V[t, j] * V[t]
            step = w[j] / pivot
            root = 1.0 / np.sqrt(pivot)
            values[done + 1] = values[done] + 0.5 * w[j] * step
            order[done] = alive[j]
            quota[labels[alive[j]]] -= 1
            done += 1
            gone[j] = True
            for i in range(size):
                if not gone[i]:
                    w[i] -= step * column[i]
                    V[s, i] = column[i] * root
                    diagonal[i] = max(diagonal[i] - V[s, i] ** 2, 1e-300)
        left = np.flatnonzero(~gone)
        U = np.ascontiguousarray(V[:, left])
        for first in range(0, len(left), STRIP):
            strip = U[:, first : first + STRIP].copy().T @ U
            for a in range(len(strip)):
                # what is written lies before what is still to be read
                source, row = T[left[first + a]], T[first + a]
                for b in range(len(left)):
                    row[b] = source[left[b]] - strip[a, b]
        w = w[left]
        alive = alive[left]
    return done


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _accumulate(A, w, linear, labels, quota, order, values):  # type: ignore[no-untyped-def]
    """Greedy selection: entry j adds `w_j (H_jj w_j / 2 + sum_P H_ji w_i) - linear_j`.

    No more than `quota[p]` entries of pool p are taken; how many were in all is returned.
    """
    n = len(w)
    quota = quota.copy()
    cost = np.empty(n)
    for i in range(n):
        cost[i] = 0.5 * w[i] * A[i, i] * w[i] - linear[i] if quota[labels[i]] > 0 else np.inf
    done = 0
    while done < n:
        best, j = np.inf, -1
        for i in range(n):
            if cost[i] < best:
                best, j = cost[i], i
        if j < 0:
            break
        values[done + 1] = values[done] + best
        order[done] = j
        done += 1
        now, line = w[j], A[j]
        for i in range(n):
            cost[i] += now * line[i] * w[i]
        cost[j] = np.inf
        quota[labels[j]] -= 1
        if quota[labels[j]] == 0:
            for i in range(n):
                if labels[i] == labels[j]:
                    cost[i] = np.inf
    return done
