"""Best splits of blocks before they are secured: units of order one, and an interior-point method."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from solvers.bounds.interior import block_interior_point, interior_point, saddle
from solvers.bounds.interior.block_saddle import Data
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.hessian.base import units
from solvers.runtime.tensors import torch

MAX_STEPS = 40
"""Newton steps at most."""

Point = tuple[Array, Array, int]


def split_alone(block: Block, tolerance: float) -> Point:
    """`d [n]`, the shares kept `z [n]`, and Newton steps: compiled, on one thread.

    Args:
        block: not trivial, of one curvature.
        tolerance: complementarity gap at which to stop, as a share of a quick mask's cost.
    """
    data, unit = scaled(block)
    z, d, steps = block_interior_point.saddle_point(data, tolerance, MAX_STEPS)
    return d * unit, z if block.refit else 1.0 - z, steps


def split_batch(
    found: Sequence[Block],
    *,
    shared: bool = False,
    device: str = "cpu",
    stopped: Callable[[], object] = lambda: None,
    tolerance: float,
) -> list[Point]:
    """As `split_alone` of every block, by batched tensors.

    Args:
        found: blocks of one variant, shape and pools, none trivial, each of one curvature.
        shared: one d for all of them; they are joint and have one curvature.
        device: torch device.
        stopped: polled between steps; a true answer ends them, with valid splits of less worth.
        tolerance: as in `split_alone`.
    """
    first = found[0]
    pairs = [scaled(block) for block in found]
    data = [one for one, _ in pairs]
    sizes = [unit for _, unit in pairs]

    def tensor(parts: Sequence[Array]) -> torch.Tensor:
        return torch.as_tensor(np.stack(parts), device=device)

    H = tensor([one.H for one in (data[:1] if shared else data)])
    B, counts = tensor([one.B for one in data]), tensor([one.counts for one in data])
    E = torch.as_tensor(np.arange(len(first.keep))[:, None] == first.labels[None, :], device=device)
    if first.refit:
        constant = torch.as_tensor(np.array([one.constant for one in data]), device=device)
        phi = saddle.joint(H.expand(len(found), -1, -1), B, constant)
    else:
        phi = saddle.selection(H, B[:, :, 0])
    point = interior_point.saddle_point(
        phi, H, counts, E, positive=first.refit, tolerance=tolerance, max_steps=MAX_STEPS, stopped=stopped
    )
    d = point.d.cpu().numpy() * np.stack(sizes[: len(H)])
    z = point.z.cpu().numpy() if first.refit else 1.0 - point.z.cpu().numpy()
    return [(d[0 if shared else i], z[i], point.steps) for i in range(len(found))]


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
