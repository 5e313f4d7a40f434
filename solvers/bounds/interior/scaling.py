"""Best splits of blocks before they are secured: units of order one, and an interior-point method."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from solvers.bounds.interior.interior_point import saddle_point
from solvers.bounds.interior.saddle import Data
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.hessian.base import units

MAX_STEPS = 40
"""Newton steps at most."""

Point = tuple[Array, Array, int]


def best_split(block: Block, tolerance: float, stopped: Callable[[], object] = lambda: None) -> Point:
    """`d [n]`, the shares kept `z [n]`, and Newton steps, in one thread.

    Args:
        block: not trivial, of one curvature.
        tolerance: complementarity gap at which to stop, as a share of a quick mask's cost.
        stopped: polled between the steps of wide blocks; a true answer ends them, with a valid split.
    """
    data, unit = scaled(block)
    z, d, steps = saddle_point(data, tolerance, MAX_STEPS, stopped)
    return d * unit, z if block.refit else 1.0 - z, steps


def scaled(block: Block) -> tuple[Data, Array]:
    """The block's data, with curvatures and optimum of order one, and the units `[n]` of d."""
    H, B, value = block.H[0], block.B[0], magnitude(block)
    counts = (block.keep if block.refit else block.prune).astype(np.float64)
    if not block.refit:
        unit = np.full(block.n, value)
        return Data(False, H / value, B / value, float(block.constant) / value, block.labels, counts), unit
    scale = units(np.diagonal(H))
    size = float((np.diagonal(H) * scale * scale).mean())
    A, right = scale[:, None] * H * scale / size, scale[:, None] * B / np.sqrt(size * value)
    return Data(True, A, right, float(block.constant) / value, block.labels, counts), size / (scale * scale)


def magnitude(block: Block) -> float:
    """The order of magnitude of the block's optimum: the value of a quick mask."""
    pools = [np.flatnonzero(block.labels == p) for p in range(len(block.keep))]
    diagonal = np.diagonal(block.H[0])
    score = diagonal * (block.W[0] ** 2).sum(axis=-1) if block.refit else 0.5 * diagonal - block.B[0, :, 0]
    pruned = np.zeros(block.n, dtype=bool)
    for index, count in zip(pools, block.prune, strict=True):
        pruned[index[np.argsort(score[index], kind="stable")[:count]]] = True
    return max(abs(block.value(pruned)), 1e-12 * abs(block.scale), np.finfo(float).tiny)
