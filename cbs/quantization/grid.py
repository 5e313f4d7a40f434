"""Uniform grids: the few values that the weights of a row, or of a whole layer, are rounded to.

A grid of `b` bits has the levels `low + step q`, `q = 0 .. 2^b - 1`: asymmetric uniform quantization, of
which two numbers in single precision are kept. Zero need not be a level: what is pruned is kept as a mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.hessian import Array
from solvers.problem import Mask

Codes = NDArray[np.uint8]
PER = ("row", "tensor")
GRIDS = ("search", "range")
TURNS = 50
"""Most turns of least squares for the grid and rounding to it; few are needed but for wide rows."""


@dataclass(frozen=True)
class Grid:
    """The levels of every row, or of all rows together.

    Attributes:
        low: `[g]` the least level of every group, `g` the number of rows or 1; single precision.
        step: `[g]` from a level to the next; single precision, 0 where one level is all there is.
        bits: of a code.
    """

    low: NDArray[np.float32]
    step: NDArray[np.float32]
    bits: int

    @property
    def levels(self) -> Array:
        """`[g, 2^bits]` in double precision, computed in single precision as whoever reads a file does."""
        q = np.arange(2**self.bits, dtype=np.float32)
        return (self.low[:, None] + self.step[:, None] * q).astype(np.float64)

    def nearest(self, W: Array) -> Codes:
        """`[m, n]` code of the level nearest to each weight, `W [m, n]`; one column or several."""
        step = np.where(self.step > 0, self.step, 1.0).astype(np.float64)[:, None]
        q = np.rint((W - self.low.astype(np.float64)[:, None]) / step)
        return np.clip(q, 0, np.where(self.step > 0, 2**self.bits - 1, 0)[:, None]).astype(np.uint8)

    def values(self, codes: Codes) -> Array:
        """`[m, n]` the levels that codes mean."""
        levels = self.levels
        if len(levels) == 1:
            return np.asarray(levels[0][codes])
        return np.take_along_axis(levels, codes.astype(np.intp), axis=1)


def fit(W: Array, pruned: Mask, bits: int, per: str = "row", grid: str = "search") -> Grid:
    """The grid for a layer's weights.

    `range` spans the weights from the least to the largest. `search` starts from there and takes by turns the
    levels nearest to the weights and the `low` and `step` of least squares for these (Lloyd's algorithm, on
    uniform grids), as long as a group gains: its squared error is never larger than that of `range`.

    Args:
        W: `[m, n]`.
        pruned: `[m, n]`, True where a weight is zero for good and has no part in it.
        bits: of a code.
        per: a grid for every `row`, or one for the whole `tensor`.
        grid: `search` or `range`.
    """
    X, K = (W, ~pruned) if per == "row" else (W.reshape(1, -1), ~pruned.reshape(1, -1))
    some = K.any(axis=1)
    low = np.where(some, np.where(K, X, np.inf).min(axis=1, initial=np.inf), 0.0)
    high = np.where(some, np.where(K, X, -np.inf).max(axis=1, initial=-np.inf), 0.0)
    best = _grid(low, (high - low) / (2**bits - 1), bits)
    for _ in range(TURNS if grid == "search" else 0):
        found = _better(best, _least_squares(best.nearest(X), X, K, bits), X, K)
        if np.array_equal(found.step, best.step) and np.array_equal(found.low, best.low):
            break
        best = found
    return best


def _grid(low: Array, step: Array, bits: int) -> Grid:
    return Grid(low.astype(np.float32), step.astype(np.float32), bits)


def _least_squares(codes: Codes, X: Array, K: Mask, bits: int) -> Grid:
    """The `low` and `step` for which `sum (x - low - step q)^2` over the weights kept is least."""
    count = np.maximum(K.sum(axis=1), 1)
    q = codes.astype(np.float64)
    mean_q, mean_x = (np.where(K, v, 0.0).sum(axis=1) / count for v in (q, X))
    dq, dx = (np.where(K, v - mean[:, None], 0.0) for v, mean in ((q, mean_q), (X, mean_x)))
    spread = np.square(dq).sum(axis=1)
    step = np.where(spread > 0, (dq * dx).sum(axis=1) / np.where(spread > 0, spread, 1.0), 0.0)
    return _grid(mean_x - step * mean_q, step, bits)


def _better(one: Grid, other: Grid, X: Array, K: Mask) -> Grid:
    """Of two grids the one of less squared error, group by group; the first where they are equal."""
    errors = [
        np.square(np.where(K, X - grid.values(grid.nearest(X)), 0.0)).sum(axis=1) for grid in (one, other)
    ]
    take = errors[1] < errors[0]
    return Grid(np.where(take, other.low, one.low), np.where(take, other.step, one.step), one.bits)
