"""Splits in blocks for rows with a lifted direction: neighbouring cells share one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from solvers.bounds.groups.central_path import group_split, settled
from solvers.bounds.groups.split import GroupSplit
from solvers.bounds.shared import relaxation as wide
from solvers.bounds.shared.lifted import Cells, Direction, at_most, shifted
from solvers.bounds.shared.rows import SharedRows
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.runtime.tensors import torch

SPLITS, LOOKS = 5, 60
"""Splits that a row gets, and cells of it that are bounded, at most."""
CHORD = 0.005
"""Share of the row's value that a cell may lose by its width for good."""


def cells_in_blocks(
    direction: Direction,
    row: int,
    cells: Cells,
    value: float,
    *,
    size: int,
    stopped: Callable[[], object] = lambda: None,
) -> float:
    """The least bound of a row's cells, once the worst have been bounded in blocks, halved, or given a split.

    A split is made for the middle of one cell, and serves those around it: there, only the point and the
    prices are sought.

    Args:
        direction: what is lifted.
        row: which row.
        cells: the row's.
        value: of a mask of the row.
        size: inputs of a block, a power of two.
        stopped: polled between cells; a true answer leaves the bound as it is by then.
    """
    lone, mu = direction.rows.some(np.array([row])), direction.mu
    found = [
        _Cell(*each)
        for each in zip(cells.low.tolist(), cells.high.tolist(), cells.bound.tolist(), strict=True)
    ]
    splits: list[_Split] = []
    for _ in range(LOOKS):
        worst = min(found, key=lambda cell: cell.bound)
        if worst.bound >= value or stopped():
            break
        parts = [worst]
        if worst.split is not None and 0.5 * mu * (0.5 * (worst.high - worst.low)) ** 2 > CHORD * value:
            parts = [replace(worst, high=worst.middle), replace(worst, low=worst.middle)]
        elif worst.split is not None or not splits:
            split = None
            if len(splits) < SPLITS and not worst.made:
                split = _made(direction, lone, worst, value, size, stopped)
            if split is None:
                break
            splits.append(split)
            parts = [replace(worst, made=True)]
        found.remove(worst)
        for part in parts:
            near = min(splits, key=lambda split, at=part.middle: abs(split.middle - at))  # type: ignore[misc]
            block, own = _row(direction, lone, part, value)
            bound = near.bound(block, value, stopped) + own
            found.append(replace(part, bound=max(part.bound, bound), split=near))
    return min(value, *(cell.bound for cell in found))


@dataclass
class _Split:
    """The middle that a split was made for, and the right-hand side and split of the cell bounded last."""

    middle: float
    b: Array
    split: GroupSplit

    def bound(self, block: Block, value: float, stopped: Callable[[], object]) -> float:
        """The bound of a cell's row, from the point of the cell before."""
        b = block.B[0, :, 0]
        start = replace(self.split, q=self.split.q + b - self.b)
        self.split, bound = settled(block, start, value, stopped=stopped)
        self.b = b
        return bound


@dataclass(frozen=True)
class _Cell:
    """Masks with `low <= s <= high` cost at least `bound`.

    Attributes:
        split: the split that says so, None for the diagonal one.
        made: whether one was made for this cell.
    """

    low: float
    high: float
    bound: float
    split: _Split | None = None
    made: bool = False

    @property
    def middle(self) -> float:
        return 0.5 * (self.low + self.high)


def _made(
    direction: Direction,
    lone: SharedRows,
    cell: _Cell,
    value: float,
    size: int,
    stopped: Callable[[], object],
) -> _Split | None:
    """A split made for a cell; None where the curvature is too close to singular for one."""
    block, own = _row(direction, lone, cell, value)
    W = torch.as_tensor(block.W[:, :, 0], device=lone.W.device)
    _, z = wide.relax(replace(lone, W=W), direction.split)
    d, least = direction.split.d.cpu().numpy(), max(value - own, 1e-3 * value)
    try:
        split, _ = group_split(block, d, z[0].cpu().numpy(), least, size=size, stopped=stopped)
    except ValueError:
        return None
    return _Split(cell.middle, block.B[0, :, 0], split)


def _row(direction: Direction, lone: SharedRows, cell: _Cell, value: float) -> tuple[Block, float]:
    """The row as it is in a cell, and what to add to its bound."""
    ends = np.array([cell.low]), np.array([cell.high])
    moved, own = shifted(direction, lone.W, *ends, at_most(np.array([value])))
    H, W = direction.rows.H.cpu().numpy(), moved[0].cpu().numpy()
    b = H @ W
    block = Block(
        True, H[None], b[None, :, None], W[None, :, None], 0.5 * float(W @ b),
        np.arange(len(W)) // lone.size, lone.keep, np.zeros(1, dtype=np.int64),
    )  # fmt: skip
    return block, float(own[0])
