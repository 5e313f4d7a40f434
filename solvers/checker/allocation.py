"""What rows that share a budget cost at least: a dynamic programme over their bounds, rounded down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from solvers.checker.rounding import Array, down


def least_total(curves: Sequence[Array], total: int) -> float:
    """A lower bound on `min sum_r f_r(k_r)` over `sum_r k_r = total`, `0 <= k_r <= n_r`.

    Args:
        curves: for every row `[n_r + 1]` lower bounds on `f_r(k)`.
        total: entries pruned together.

    Rounding keeps order, so that the least of the rounded sums is the least sum, rounded; the float below it
    is a lower bound on the exact programme over the rows so far. Without a negative bound, none is negative.
    """
    best = np.zeros(1)
    for curve in curves:
        positive = best.min() >= 0.0 and curve.min() >= 0.0
        length = min(len(best) + len(curve) - 2, total)
        stage = np.full(length + 1, np.inf)
        for k, bound in enumerate(curve[: length + 1].tolist()):
            part = best[: length + 1 - k]
            np.minimum(stage[k : k + len(part)], part + bound, out=stage[k : k + len(part)])
        best = np.maximum(down(stage), 0.0) if positive else down(stage)
    return float(best[total]) if total < len(best) else np.inf
