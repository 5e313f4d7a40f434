"""Greedy curves: what the greedy rule pays to prune k weights of a row, for every k at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.executors.spread import chunks, spread
from solvers.greedy.elimination import BLOCK, Inverses, accumulate, eliminate
from solvers.hessian import Array, Hessian, as_hessian
from solvers.problem import Mask
from solvers.runtime.parallel import side_by_side

MEMORY = 2 << 30
"""Bytes that the matrices of the rows in work may take by default."""


@dataclass(frozen=True)
class GreedyCurves:
    """What greedy pruning of every row costs at every k, and the order in which it prunes.

    Attributes:
        values: `[m, n + 1]` cost of pruning the first k entries of `order`.
        order: `[m, n]` entries in the order greedy prunes them.
    """

    values: Array
    order: NDArray[np.int64]

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
    memory: int = MEMORY,
    executor: Executor | None = None,
) -> GreedyCurves:
    """Greedy pruning of every row from nothing to everything.

    Joint: the weight of least OBS saliency `w^_j^2 / (2 T_jj)` goes next, and the survivors move
    (OBC, Frantar & Alistarh 2022, without its approximations). Selection: the weight that adds least
    to `1/2 w_P' H_PP w_P - g_P' w_P` goes next.

    Args:
        weights: `W [m, n]`.
        hessian: `[n, n]`, `[m, n, n]` or a `Hessian`; positive definite when `refit`.
        refit: whether survivors move.
        gradient: `G [m, n]` of a selection problem, or None for zero.
        memory: bytes that joint elimination may take beyond curvature and curves: a matrix `[n, n]` for
            every row in work, of which there is at least one, and the inverse of a shared curvature.
        executor: whose workers take the rows, parts of them each; None for threads of this process.

    Raises:
        ValueError: as `SubsetProblem` does.
    """
    W = np.ascontiguousarray(weights, dtype=np.float64)
    m, n = W.shape
    H = as_hessian(hessian, m, n, definite=refit)
    if executor is not None and H.shared:
        parts = [
            (W[rows], H, refit, None if gradient is None else gradient[rows], memory)
            for rows in chunks(range(m), executor)
        ]
        found = [curves for curves in spread(executor, _part, parts) if curves is not None]
        return GreedyCurves(
            np.concatenate([each.values for each in found]), np.concatenate([each.order for each in found])
        )
    values, order = np.zeros((m, n + 1)), np.zeros((m, n), np.int64)
    one_pool, everything = np.zeros(n, np.int64), np.array([n])
    prune = _pruning(W, H, refit, gradient, memory)
    side_by_side(lambda r: prune(r, one_pool, everything, order[r], values[r]), range(m))
    return GreedyCurves(values, order)


def _part(item: tuple[Array, Hessian, bool, Array | None, int]) -> GreedyCurves:
    """The curves of some rows, on a worker."""
    W, H, refit, gradient, memory = item
    return row_curves(W, H, refit=refit, gradient=gradient, memory=memory)


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
    prune_row = _pruning(W, H, refit, gradient, memory)

    def row(r: int) -> None:
        order, values, first = np.zeros(H.n, np.int64), np.zeros(H.n + 1), labels[r].min()
        taken = prune_row(r, labels[r] - first, prune[first : labels[r].max() + 1], order, values)
        mask[r, order[:taken]] = True

    side_by_side(row, range(len(W)))
    return mask


def _pruning(W: Array, H: Hessian, refit: bool, gradient: Array | None, memory: int) -> Callable[..., int]:
    """`prune(r, labels, quota, order, values)`: greedy pruning of a row, see `eliminate` and `accumulate`."""
    if refit:
        inverses = Inverses(H, len(W), memory)

        def prune(r: int, *pools_and_results: Array) -> int:
            with inverses.of(r) as T:
                return int(eliminate(T, np.ascontiguousarray(W[r]), BLOCK, *pools_and_results))
    else:

        def prune(r: int, *pools_and_results: Array) -> int:
            w = np.ascontiguousarray(W[r])
            linear = np.zeros(H.n) if gradient is None else gradient[r] * w
            return int(accumulate(H.dense(r), w, linear, *pools_and_results))

    return prune
