"""Greedy elimination in one row, compiled, and the inverses of curvature that it works in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import numpy as np
import scipy.linalg

from solvers.hessian import Array, Hessian
from solvers.runtime.compiled import FLAGS, njit
from solvers.runtime.parallel import workers

BLOCK = 32
"""Eliminations between two updates of the trailing matrix."""
STRIP = 256
"""Rows of the trailing matrix that are updated by one product."""


class Inverses:
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
def eliminate(T, weights, block, labels, quota, order, values):  # type: ignore[no-untyped-def]
    """Greedy elimination with the trailing update `T -= V V'` delayed by `block` steps.

    T starts as the inverse curvature and is worked in: its leading part is what is left of it.

    Args:
        T: `[n, n]`.
        weights: `[n]`.
        block: eliminations between two updates.
        labels: `[n]` pools.
        quota: `[pools]` entries to take at most.
        order: `[n]` takes the entries in turn.
        values: `[n + 1]` takes what they cost together; starts with a zero.

    Returns:
        How many entries were taken.
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
def accumulate(A, w, linear, labels, quota, order, values):  # type: ignore[no-untyped-def]
    """Greedy selection: entry j adds `w_j (H_jj w_j / 2 + sum_P H_ji w_i) - linear_j`; how many were taken.

    Args:
        A: `[n, n]` curvature.
        w: `[n]`.
        linear: `[n]`.
        labels: `[n]` pools.
        quota: `[pools]` entries to take at most.
        order: `[n]` takes the entries in turn.
        values: `[n + 1]` takes what they cost together; starts with a zero.
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
