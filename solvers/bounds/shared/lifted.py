"""Bounds of joint rows whose curvature is flat in one direction that runs through many inputs.

A diagonal split obeys `sum d_i a_i^2 <= a'H a` for every a, so that one dense direction in which H is next to
nothing (inputs behind a layer norm have one) keeps all of d small, though a mask can hardly make use of it.
With `H' = H + mu a a'` a row that moves by D, `s = a'D`, costs

    1/2 D'H D = 1/2 D'H'D - mu/2 s^2  >=  1/2 D'H'D - mu c s + mu (c^2 - h^2) / 2     for |s - c| <= h

since a concave function lies above its chord. The right side is the cost of other weights at `H'`: with
`H'e = mu c a`, that of `w + e`, plus `mu (c^2 - h^2) / 2 - 1/2 e'H'e`. `H'` has a much larger split, and the
cells `[c - h, c + h]` are one more dimension of a batch. Masks that cost less than U have
`s^2 <= 2 U a'H^-1 a`, so that finitely many cells cover them: the bound is the least over the cells, or U.
(Spatial branching in one variable; compare Locatelli and Schoen 2013, chapter 5.) A cell's bound comes from a
diagonal split, or in time from one in blocks, which neighbouring cells share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.groups.central_path import SETTLED, group_split, start
from solvers.bounds.groups.clusters import correlated, joined
from solvers.bounds.groups.split import GroupSplit
from solvers.bounds.secure import EPS, secure
from solvers.bounds.shared import relaxation
from solvers.bounds.shared.common import HeldGroups, common_groups
from solvers.bounds.shared.relaxation import SharedSplit
from solvers.bounds.shared.rows import SharedRows, row_bounds
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.runtime.tensors import Tensor, torch

Stopped = Callable[[], object]

EDGES = np.array([0.02, 0.05, 0.1, 0.17, 0.27, 0.45, 1.0])
"""First edges of cells on either side, as shares of the largest |s|."""
ROUNDS = 10
"""Times that each row's worst cell is halved."""
GAIN = 0.03
"""Share of the gap that the bounds at `s = 0` must close at least, for the cells to be looked at."""
POWERS = 100
"""Steps of the power method."""
SPREAD = 0.25
"""Share of the inputs that the direction must run through, by its participation ratio."""
SPLITS, LOOKS = 5, 60
"""Splits that a row gets, and cells of it that are bounded, at most."""
CHORD, WIDER = 0.005, 0.02
"""Share of the row's value that a cell may lose by its width for good, by own blocks and by common ones."""
COARSE = 0.05
"""As `solvers.bounds.groups.central_path.SETTLED`, where blocks are common."""
ROWS = 16
"""Rows, evenly spread over the layer, that common blocks are made for."""


@dataclass(frozen=True)
class Direction:
    """What is lifted.

    Attributes:
        a: `[n]` unit vector.
        mu: weight of `a a'`: the harmonic mean of H's other eigenvalues, about.
        lowest: no eigenvalue of H is below it, for certain.
        rows: the rows at `H'`.
        split: of `H'`.
        off: bound on the spectral norm of `H' - H - mu a a'`, which rounding leaves.
    """

    a: Tensor
    mu: float
    lowest: float
    rows: SharedRows
    split: SharedSplit
    off: float


def lift(rows: SharedRows, plain: SharedSplit, stopped: Stopped = lambda: None) -> Direction | None:
    """The curvature's lowest eigenvector lifted, or None if it runs through few inputs.

    Args:
        rows: joint rows whose pools lie within them, in double precision.
        plain: their split without a lift.
        stopped: polled; a true answer leaves the new split as good as it is.
    """
    inverse = plain.inverse
    a = torch.randn(len(inverse), generator=torch.Generator().manual_seed(0), dtype=inverse.dtype)
    a = a.to(inverse.device)
    for _ in range(POWERS):
        a = inverse @ (a / torch.linalg.vector_norm(a))
    a = a / torch.linalg.vector_norm(a)
    if float((a**4).sum()) * len(a) * SPREAD > 1.0:
        return None
    value = float(a @ rows.H @ a)
    lowest = float(secure(rows.H.cpu().numpy(), np.full(len(a), 0.99 * value), True).min())
    mu = (len(a) - 1) / max(float(torch.diagonal(inverse).sum()) - 1.0 / value, 1e-3 / value)
    off = 4.0 * EPS * (float(torch.linalg.matrix_norm(rows.H)) + mu)
    lifted = replace(rows, H=rows.H + mu * torch.outer(a, a))
    return Direction(a, mu, lowest, lifted, relaxation.choose(lifted, stopped), off)


@dataclass(frozen=True)
class Cells:
    """What covers `s` of every row: no mask of `row` with `low <= s <= high` costs less than `bound`.

    That holds for masks below the row's value; `[cells]` each.
    """

    row: NDArray[np.int64]
    low: Array
    high: Array
    bound: Array

    def bounds(self, known: Array, values: Array) -> Array:
        """`[m]` bounds of whole rows, not below `known`."""
        least = np.full(len(known), np.inf)
        np.minimum.at(least, self.row, self.bound)
        return np.asarray(np.maximum(known, np.minimum(least, values)))

    def of(self, row: int) -> Cells:
        """Those of one row, which is row 0 then."""
        own = np.flatnonzero(self.row == row)
        return Cells(np.zeros(len(own), dtype=np.int64), self.low[own], self.high[own], self.bound[own])


def cover(direction: Direction, known: Array, values: Array, stopped: Stopped = lambda: None) -> Cells | None:
    """Cells and their bounds for all rows; None if the lift does not pay.

    Args:
        direction: rows and split at the lifted curvature.
        known: `[m]` bounds at hand.
        values: `[m]` what a mask of each row costs.
        stopped: polled between batches; a true answer leaves the bounds as they are by then.
    """
    m, most = len(values), at_most(values)
    centre = _cells(direction, np.arange(m), np.zeros(m), np.zeros(m), most, stopped)
    if stopped() or (centre - known).sum() <= GAIN * (values - known).sum():
        return None
    reach = np.sqrt(2.0 * most / direction.lowest) * (1.0 + 1e-9)
    edges = np.concatenate([-EDGES[::-1], EDGES])
    row = np.repeat(np.arange(m), len(edges) - 1)
    low, high = (reach[:, None] * edges[:-1]).ravel(), (reach[:, None] * edges[1:]).ravel()
    bound = _cells(direction, row, low, high, most, stopped)
    for _ in range(ROUNDS):
        if stopped():
            break
        order = np.lexsort((bound, row))
        worst = order[np.unique(row[order], return_index=True)[1]]
        worst = worst[bound[worst] < most[row[worst]]]
        if not len(worst):
            break
        middle = 0.5 * (low[worst] + high[worst])
        halves = [
            _cells(direction, row[worst], *ends, most, stopped)
            for ends in ((low[worst], middle), (middle, high[worst]))
        ]
        row, low = np.concatenate([row, row[worst]]), np.concatenate([low, middle])
        high = np.concatenate([high, high[worst]])
        high[worst] = middle
        bound[worst] = np.maximum(bound[worst], halves[0])
        bound = np.concatenate([bound, halves[1]])
    return Cells(row, low, high, bound)


def at_most(values: Array) -> Array:
    """What masks cost that cells are about: a little more than those at hand."""
    return values * (1.0 + 1e-9)


def _cells(
    direction: Direction, row: NDArray[np.int64], low: Array, high: Array, most: Array, stopped: Stopped
) -> Array:
    """Bounds of cells `low <= s <= high`, a row each, on the cost of masks that cost at most `most`."""
    moved, own = shifted(direction, direction.rows.W[row], low, high, most[row])
    batch = replace(direction.rows.some(row), W=moved)
    v, _ = relaxation.relax(batch, direction.split, stopped)
    return np.nan_to_num(row_bounds(batch, direction.split.d, v) + own, nan=0.0)


def shifted(direction: Direction, W: Tensor, low: Array, high: Array, most: Array) -> tuple[Tensor, Array]:
    """Weights `[cells, n]` of rows W in cells, and what to add `[cells]` to bounds on their cost at `H'`."""
    H, a, mu = direction.rows.H, direction.a, direction.mu
    c, h = 0.5 * (low + high), 0.5 * (high - low) * (1.0 + 4.0 * EPS)
    along = mu / float(a @ H @ a)
    centre = torch.as_tensor(c, device=a.device)[:, None]
    moved = W + along * centre * a
    # What rounding leaves of H'e = mu c a, and of e'H'e, for the e that was added.
    e, gamma = moved - W, 2.0 * (len(a) + 8) * EPS
    He, size = e @ H, e.abs() @ H.abs()
    wanted = mu * centre * a
    rest = torch.linalg.vector_norm((He - wanted).abs() + gamma * (size + wanted.abs()), dim=1).cpu().numpy()
    square = (e * He).sum(1) + gamma * (e.abs() * size).sum(1)
    own = 0.5 * mu * (c * c - h * h) - 0.5 * square.cpu().numpy()
    length = np.sqrt(2.0 * most / direction.lowest)
    slack = length * rest + 0.5 * direction.off * length**2 + 8.0 * EPS * (np.abs(own) + mu * c * c)
    return moved, np.asarray(own - (1.0 + 1e-9) * slack)


def common_blocks(
    direction: Direction, cells: Cells, values: Array, *, size: int, stopped: Stopped = lambda: None
) -> HeldGroups | None:
    """Blocks for all cells of all rows, made for the worst cells of some.

    None if there is no room for any, or if groups are whole pools: the steps of these come to little.

    Args:
        direction: what is lifted.
        cells: of all rows.
        values: `[m]` what a mask of each row costs.
        size: inputs of a block, a power of two.
        stopped: polled between steps; a true answer leaves the blocks as good as they are.
    """
    found, points, costs, d = [], [], [], direction.split.d.cpu().numpy()
    for row in np.unique(np.linspace(0, len(values) - 1, min(len(values), ROWS)).astype(np.int64)).tolist():
        own, value = cells.of(row), float(values[row])
        worst = int(np.argmin(own.bound))
        cell = _Cell(float(own.low[worst]), float(own.high[worst]), float(own.bound[worst]))
        lone = direction.rows.some(np.array([row]))
        block, cost = _row(direction, lone, cell, value)
        if not value > 0.0:
            continue
        found.append(block)
        points.append(start(block, d, _kept(direction, lone, block)))
        costs.append(_cost(value, cost))
    if not found:
        return None
    groups = correlated(found[0], d, size)
    splits = [joined(block, alone, groups) for block, alone in zip(found, points, strict=True)]
    if any(family.pattern for family in splits[0].families):
        return None
    try:
        return HeldGroups(found[0], common_groups(found, splits, costs, stopped=stopped))
    except ValueError:
        return None


def cells_in_blocks(
    direction: Direction,
    row: int,
    cells: Cells,
    value: float,
    *,
    size: int,
    common: HeldGroups | None = None,
    stopped: Stopped = lambda: None,
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
        common: blocks that serve all cells, so that none are made.
        stopped: polled between cells; a true answer leaves the bound as it is by then.
    """
    lone, mu = direction.rows.some(np.array([row])), direction.mu
    chord = (CHORD if common is None else WIDER) * value
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
        if worst.split is not None and 0.5 * mu * (0.5 * (worst.high - worst.low)) ** 2 > chord:
            parts = [replace(worst, high=worst.middle), replace(worst, low=worst.middle)]
        elif worst.split is not None or not splits:
            split = None
            if common is not None and not splits:
                split = _at(direction, lone, worst, value, common)
            elif common is None and len(splits) < SPLITS and not worst.made:
                split = _made(direction, lone, worst, value, size, stopped)
            if split is None:
                break
            splits.append(split)
            parts = [replace(worst, made=True)]
        found.remove(worst)
        for part in parts:
            near = min(splits, key=lambda split, at=part.middle: abs(split.middle - at))  # type: ignore[misc]
            block, own = _row(direction, lone, part, value)
            bound = near.bound(block, _cost(value, own), stopped) + own
            found.append(replace(part, bound=max(part.bound, bound), split=near))
    return min(value, *(cell.bound for cell in found))


@dataclass
class _Split:
    """Held blocks, the middle that they were made for, and weights and point of the cell bounded last.

    Attributes:
        last: T times the barrier's parameter at the end, as a share of the gap.
        heat: the same to go on from that point with, as one of the value; None where none was found yet.
    """

    middle: float
    W: Array
    split: GroupSplit
    held: HeldGroups
    last: float
    heat: float | None

    def bound(self, block: Block, value: float, stopped: Stopped) -> float:
        """The bound of a cell's row, from the point of the cell before, which moves with the cell."""
        W = block.W[0, :, 0]
        start = replace(self.split, q=self.split.q + self.held.moved(W - self.W))
        self.split, bound = self.held.settled(
            block, start, value, heat=self.heat, last=self.last, stopped=stopped
        )
        self.W, self.heat = W, self.last * max(1.0 - bound / value, 1e-3)
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


def _cost(value: float, own: float) -> float:
    """What a mask costs in a cell, whose bound gets `own` added."""
    return max(value - own, 1e-3 * value)


def _kept(direction: Direction, lone: SharedRows, block: Block) -> Array:
    """`[n]` relaxed indicators of a row in a cell, at the direction's split."""
    W = torch.as_tensor(block.W[:, :, 0], device=lone.W.device)
    return np.asarray(relaxation.relax(replace(lone, W=W), direction.split)[1][0].cpu().numpy())


def _at(direction: Direction, lone: SharedRows, cell: _Cell, value: float, held: HeldGroups) -> _Split:
    """Blocks that are at hand, for a cell to start with."""
    block, _ = _row(direction, lone, cell, value)
    point = start(block, direction.split.d.cpu().numpy(), _kept(direction, lone, block))
    return _Split(cell.middle, block.W[0, :, 0], point, held, COARSE, None)


def _made(
    direction: Direction,
    lone: SharedRows,
    cell: _Cell,
    value: float,
    size: int,
    stopped: Stopped,
) -> _Split | None:
    """A split made for a cell; None where the curvature is too close to singular for one."""
    block, own = _row(direction, lone, cell, value)
    d, z = direction.split.d.cpu().numpy(), _kept(direction, lone, block)
    try:
        split, _ = group_split(block, d, z, _cost(value, own), size=size, stopped=stopped)
        return _Split(
            cell.middle, block.W[0, :, 0], split, HeldGroups(block, split.families), SETTLED, SETTLED
        )
    except ValueError:
        return None


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
