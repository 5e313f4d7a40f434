"""Row curves: what it costs to prune k weights of a row, for every k at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numba import njit
from numpy.typing import ArrayLike, NDArray

from solvers.hessian import Array, Hessian, as_hessian
from solvers.parallel import side_by_side
from solvers.problem import Mask

BLOCK = 32
"""Eliminations between two updates of the trailing matrix."""


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

    Raises:
        ValueError: as `SubsetProblem` does.
    """
    W = np.ascontiguousarray(weights, dtype=np.float64)
    m, n = W.shape
    H = as_hessian(hessian, m, n, definite=refit)
    values, order = np.zeros((m, n + 1)), np.zeros((m, n), np.int64)
    inverse = invert(H.dense(0)) if refit and H.shared else None
    one_pool = np.zeros(n, np.int64)
    linear = np.zeros((m, n)) if gradient is None else gradient * W

    def row(r: int) -> None:
        A = H.dense(r)
        if refit:
            C = invert(A) if inverse is None else inverse
            _eliminate(C, W[r], BLOCK, one_pool, np.array([n]), order[r], values[r])
        else:
            _accumulate(A, W[r], linear[r], order[r], values[r])

    side_by_side(row, range(m))
    lower = None
    if bounds:
        from solvers.bounds.curves import lower_curves

        lower = lower_curves(W, H, gradient, refit=refit, device=device)
        np.minimum(lower, values, out=lower)
    return RowCurves(values, order, lower)


def greedy_in_pools(W: Array, H: Hessian, labels: NDArray[np.int64], prune: NDArray[np.int64]) -> Mask:
    """`[m, n]` mask of joint greedy elimination that takes `prune[p]` entries of every pool p.

    Args:
        W: `[m, n]`.
        H: positive definite curvature.
        labels: `[m, n]` pools.
        prune: `[pools]` entries to take.
    """
    inverse = invert(H.dense(0)) if H.shared else None
    mask = np.zeros(W.shape, dtype=bool)

    def row(r: int) -> None:
        order, values = np.zeros(H.n, np.int64), np.zeros(H.n + 1)
        C = invert(H.dense(r)) if inverse is None else inverse
        taken = _eliminate(C, np.ascontiguousarray(W[r]), BLOCK, labels[r], prune, order, values)
        mask[r, order[:taken]] = True

    side_by_side(row, range(len(W)))
    return mask


def invert(A: Array) -> Array:
    """The inverse of a positive definite matrix, symmetric to the last bit."""
    L, _ = scipy.linalg.lapack.dpotrf(np.asarray(A), lower=1)
    inverse, info = scipy.linalg.lapack.dpotri(L, lower=1)
    if info != 0:
        raise ValueError("hessian is singular; add damping to its diagonal")
    low = np.tril(inverse)
    return np.ascontiguousarray(low + np.tril(inverse, -1).T)


@njit(cache=True, nogil=True)
def _eliminate(inverse, weights, block, labels, quota, order, values):  # type: ignore[no-untyped-def]
    """Greedy elimination with the trailing update `T -= V V'` delayed by `block` steps.

    No more than `quota[p]` entries of pool p are taken; how many were in all is returned.
    """
    n = len(weights)
    quota = quota.copy()
    alive = np.arange(n)
    T = inverse.copy()
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
            column = T[j].copy()
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
        rest = np.empty((len(left), len(left)))
        for a in range(len(left)):
            for b in range(len(left)):
                rest[a, b] = T[left[a], left[b]]
        U = np.ascontiguousarray(V[:, left])
        T = rest - U.T @ U
        w = w[left]
        alive = alive[left]
    return done


@njit(cache=True, nogil=True)
def _accumulate(A, w, linear, order, values):  # type: ignore[no-untyped-def]
    """Greedy selection: entry j adds `w_j (H_jj w_j / 2 + sum_P H_ji w_i) - linear_j`."""
    n = len(w)
    pull = np.zeros(n)
    gone = np.zeros(n, np.bool_)
    for k in range(n):
        best, j = np.inf, -1
        for i in range(n):
            if not gone[i]:
                cost = w[i] * (0.5 * A[i, i] * w[i] + pull[i]) - linear[i]
                if cost < best or j < 0:
                    best, j = cost, i
        gone[j] = True
        order[k] = j
        values[k + 1] = values[k] + best
        for i in range(n):
            pull[i] += A[j, i] * w[j]
