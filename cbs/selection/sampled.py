"""Greedy curves of wide layers, from some of their rows: the elimination of every row would take hours.

A row of n inputs is eliminated in about `n^3` operations. Where a layer has too many such rows, some are
eliminated, and tell by how much greedy pruning of k weights costs more than their saliencies
`w^2 / (2 [H^-1]_qq)` add up to; the curves of the others are their own sums of saliencies, as much more.
What a row's own weights are so still decides its share of a budget.
"""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np

from solvers.greedy.curves import GreedyCurves, row_curves
from solvers.greedy.elimination import invert
from solvers.hessian import Array, Hessian


def sampled_curves(
    W: Array, H: Hessian, count: int, executor: Executor | None = None, seed: int = 0
) -> GreedyCurves:
    """Greedy curves of joint problems: exact in `count` rows, estimated by these in the others.

    With `s_r(k)` the sum of a row's k smallest saliencies and `g_r(k)` what greedy pruning of k costs, rows
    that were not eliminated get `s_r(k) sum_R g_i(k) / sum_R s_i(k)`, R those that were, and the order of
    their saliencies.

    Args:
        W: `[m, n]`.
        H: curvature that the rows share, positive definite.
        count: rows to eliminate, 1 to m.
        executor: whose workers eliminate them; None for threads of this process.
        seed: of the draw of these rows.
    """
    m, n = W.shape
    rows = np.sort(np.random.default_rng(seed).choice(m, size=count, replace=False))
    exact = row_curves(W[rows], H, executor=executor)
    saliency = W * W / (2.0 * np.diagonal(invert(H.dense(0))))
    order = np.argsort(saliency, axis=1, kind="stable")
    values = np.zeros((m, n + 1))
    np.cumsum(np.take_along_axis(saliency, order, axis=1), axis=1, out=values[:, 1:])
    sums = values[rows].sum(axis=0)
    values *= np.divide(exact.values.sum(axis=0), sums, out=np.ones(n + 1), where=sums > 0)
    np.maximum.accumulate(values, axis=1, out=values)
    values[rows], order[rows] = exact.values, exact.order
    return GreedyCurves(values, order)
