"""A row's best move and its cost by iterative refinement, where rounding would spoil them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.hessian import Array, Hessian
from solvers.hessian.base import SINGULAR, Index, units
from solvers.hessian.doubled import add_product, dot

PASSES = 40
"""Refinements at most; each leaves a part of the error that grows with the condition."""
SETTLED = 1e-18
"""Part of a cost that more refinements are not worth."""


class Refined(NamedTuple):
    """A move that can't be told from the best one in double precision.

    Attributes:
        D: `[n]` the move.
        cost: what it costs, `g.D + 1/2 D'HD`, to double precision.
        excess: about twice what that is above the least cost.
    """

    D: Array
    cost: float
    excess: float


def refine(
    hessian: Hessian, row: int, moving: NDArray[np.bool_], D: Array, gradient: Array | None
) -> Refined:
    """Newton steps on `g.D + 1/2 D'HD` over the entries that move, from a move that is nearly the best.

    A residual in doubled precision and a solve in double gain digits as long as the condition times the unit
    of rounding is below one (Higham 2002, section 12.1). The cost is that of the move that comes out, so it
    is never below the least; the last step's length `(r' H_MM^-1 r)^1/2` tells how near to it.

    Args:
        hessian: the curvature.
        row: whose.
        moving: `[n]` bool, the entries M that move.
        D: `[n]` a move.
        gradient: `[n]`, or None for zero.
    """
    index = np.flatnonzero(moving)
    g = np.zeros(len(D)) if gradient is None else gradient
    solve = _solver(hessian, row, index)
    best: Refined | None = None
    for _ in range(PASSES):
        heads, tails = hessian.doubled(row, D)
        cost = float(dot(D, *add_product(0.5 * heads, 0.5 * tails, 1.0, g)))
        if best is not None and not cost < best.cost:
            break
        heads, tails = add_product(heads, tails, 1.0, g)
        pull = (heads + tails)[index]
        step = solve(pull)
        best = Refined(D, cost, float(pull @ step))
        if not best.excess > SETTLED * abs(cost):
            break
        D = D.copy()
        D[index] -= step
    assert best is not None
    return best


def _solver(hessian: Hessian, row: int, index: Index) -> Callable[[Array], Array]:
    """`H_MM^-1 b` by one factor, at unit diagonal; wide curvatures have their own ways."""
    if not len(index):
        return lambda b: b
    if hessian.implicit:
        return lambda b: hessian.solve(row, index, b)
    A = hessian.block(row, index)
    scale = units(np.diagonal(A))
    try:
        factor = scipy.linalg.cho_factor(scale[:, None] * A * scale, lower=True)
    except scipy.linalg.LinAlgError:
        raise ValueError(SINGULAR) from None
    return lambda b: np.asarray(scale * scipy.linalg.cho_solve(factor, scale * b))
