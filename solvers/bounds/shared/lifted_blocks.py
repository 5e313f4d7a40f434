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
    search = _Search(direction, direction.rows.some(np.array([row])), value, size, stopped)
    found = [
        _Cell(*each)
        for each in zip(cells.low.tolist(), cells.high.tolist(), cells.bound.tolist(), strict=True)
    ]
    for _ in range(LOOKS):
        worst = min(found, key=lambda cell: cell.bound)
        if worst.bound >= value or stopped():
            break
        if not search.splits:
            if not search.add(worst):
                break
            parts = [replace(worst, made=True)]
        elif worst.split is None:
            parts = [worst]
        elif 0.5 * direction.mu * (0.5 * (worst.high - worst.low)) ** 2 > CHORD * value:
            middle = 0.5 * (worst.low + worst.high)
            parts = [replace(worst, high=middle), replace(worst, low=middle)]
        elif len(search.splits) < SPLITS and not worst.made:
            if not search.add(worst):
                break
            parts = [replace(worst, made=True)]
        else:
            break
        found.remove(worst)
        found += [search.bounded(part) for part in parts]
    return min(value, *(cell.bound for cell in found))


@dataclass(frozen=True)
class _Cell:
    """Masks with `low <= s <= high` cost at least `bound`.

    Attributes:
        split: number of the split that says so, None for the diagonal one.
        made: whether that was made for this cell.
    """

    low: float
    high: float
    bound: float
    split: int | None = None
    made: bool = False

    @property
    def middle(self) -> float:
        return 0.5 * (self.low + self.high)


@dataclass
class _Split:
    """The middle that a split was made for, and the right-hand side and split of the cell bounded last."""

    middle: float
    b: Array
    split: GroupSplit


class _Search:
    """One row's splits in blocks."""

    def __init__(
        self, direction: Direction, lone: SharedRows, value: float, size: int, stopped: Callable[[], object]
    ) -> None:
        self.direction, self.lone, self.value, self.size, self.stopped = direction, lone, value, size, stopped
        self.splits: list[_Split] = []

    def add(self, cell: _Cell) -> bool:
        """Make a split for a cell; false where the curvature is too close to singular for one."""
        block, own = self._at(cell)
        _, z = wide.relax(
            replace(self.lone, W=torch.as_tensor(block.W[:, :, 0], device=self.lone.W.device)),
            self.direction.split,
        )
        d, value = self.direction.split.d.cpu().numpy(), max(self.value - own, 1e-3 * self.value)
        try:
            split, _ = group_split(block, d, z[0].cpu().numpy(), value, size=self.size, stopped=self.stopped)
        except ValueError:
            return False
        self.splits.append(_Split(cell.middle, block.B[0, :, 0], split))
        return True

    def bounded(self, cell: _Cell) -> _Cell:
        """A cell's bound by the nearest split."""
        k = min(range(len(self.splits)), key=lambda k: abs(self.splits[k].middle - cell.middle))
        near = self.splits[k]
        block, own = self._at(cell)
        b = block.B[0, :, 0]
        start = replace(near.split, q=near.split.q + b - near.b)
        near.split, bound = settled(block, start, self.value, stopped=self.stopped)
        near.b = b
        return replace(cell, bound=max(cell.bound, bound + own), split=k)

    def _at(self, cell: _Cell) -> tuple[Block, float]:
        """The row as it is in a cell, and what to add to its bound."""
        ends = np.array([cell.low]), np.array([cell.high])
        moved, own = shifted(self.direction, self.lone.W, *ends, at_most(np.array([self.value])))
        H, W = self.direction.rows.H.cpu().numpy(), moved[0].cpu().numpy()
        b = H @ W
        labels = np.arange(len(W)) // self.lone.size
        block = Block(
            True,
            H[None],
            b[None, :, None],
            W[None, :, None],
            0.5 * float(W @ b),
            labels,
            self.lone.keep,
            np.zeros(1, dtype=np.int64),
        )
        return block, float(own[0])
