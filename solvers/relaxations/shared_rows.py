"""Raising the bounds of many wide rows of one curvature beyond what the split they share gives.

A flat direction of the curvature is lifted (`solvers.bounds.shared.lifted`); in time, rows get splits of
their own, diagonal or in blocks, the widest gaps first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from solvers.bounds.secure import EPS, secure
from solvers.bounds.shared import relaxation
from solvers.bounds.shared.common import HeldGroups
from solvers.bounds.shared.lifted import Cells, Direction, cells_in_blocks, common_blocks, cover, lift
from solvers.bounds.shared.relaxation import NEAR, shared_split
from solvers.bounds.shared.rows import SharedRows, layer_price, row_bounds
from solvers.control import Control
from solvers.hessian import Array
from solvers.problem import Mask
from solvers.runtime.parallel import side_by_side
from solvers.runtime.tensors import Tensor, torch

QUICK = 8
"""Steps of its own split that every row takes before any takes more: most of the gain comes with them."""

Bounding = Callable[[SharedRows, relaxation.SharedSplit, int], float]
"""A bound of a lone row at a split, and which row it is."""


@dataclass(frozen=True)
class RaisedRows:
    """Joint rows with pools of their own, or at a price.

    Attributes:
        rows: in double precision.
        shared: their split.
        values: `[m]` what a mask of each row costs.
        control: limits and progress.
        stats: where to say what was done.
        paid: part of the values that is a price, not a cost.
        lock: rows are worked on in threads, and report one at a time.
    """

    rows: SharedRows
    shared: relaxation.SharedSplit
    values: Array
    control: Control
    stats: dict[str, Any]
    paid: float = 0.0
    lock: Lock = field(default_factory=Lock)

    def raised(self, known: Array, size: int) -> Array:
        """`[m]` bounds not below `known`.

        Without a time limit a flat direction is lifted, if there is one. With one, rows get splits of their
        own, the widest gaps first: cells of a lifted row in blocks; rows that are not lifted diagonal ones,
        briefly where they can get blocks later.

        Args:
            known: `[m]` bounds at hand.
            size: inputs of a block at most, a power of two; 1 for diagonal splits only.
        """
        timed = self.control.deadline is not None
        direction = lift(self.rows, self.shared, self.control.stopped)
        cells = None
        if direction is not None:
            cells = cover(direction, known, self.values, self.control.stopped)
        self.stats["lifted"] = cells is not None
        if direction is None or cells is None:
            return self.own(self.rows, self.shared, known, _plain) if timed and size == 1 else known
        bounds = cells.bounds(known, self.values)
        if not timed or self._enough(bounds):
            return bounds
        if size > 1:
            return self._in_blocks(direction, cells, bounds, size)

        def bounding(lone: SharedRows, split: relaxation.SharedSplit, row: int) -> float:
            some = slice(row, row + 1)
            at = replace(direction, rows=lone, split=split)
            found = cover(at, np.zeros(1), self.values[some], self.control.stopped)
            return -np.inf if found is None else float(found.bounds(bounds[some], self.values[some])[0])

        return self.own(direction.rows, direction.split, bounds, bounding)

    @classmethod
    def layer_bound(
        cls,
        rows: SharedRows,
        shared: relaxation.SharedSplit,
        v: Tensor,
        mask: Mask,
        values: Array,
        control: Control,
        stats: dict[str, Any],
    ) -> float:
        """The bound of a pool over all rows, by its price `t >= 0`: `sum_rows min (cost + t kept) - t keep`.

        Rows with a price are rows with a budget of their own for all that raises bounds, blocks left out.

        Args:
            rows: joint, of one pool.
            shared: their split.
            v: `[m, n]` points of the layer's relaxation.
            mask: of the budget.
            values: `[m]` its rows' costs.
            control: limits and progress.
            stats: where to say what was done.
        """  # fmt: skip
        kept, price = (~mask).sum(axis=1), layer_price(rows, shared.d, v)
        if not price > 0.0:
            return 0.0
        own, paid = rows.priced(price), price * float(rows.keep[0])
        known = row_bounds(own, shared.d, v)
        found = cls(own, shared, values + price * kept, control, stats, paid).raised(known, 1)
        total = math.fsum(found)
        return total - paid - 8.0 * EPS * (abs(total) + paid)

    def own(
        self,
        rows: SharedRows,
        shared: relaxation.SharedSplit,
        known: Array,
        bounding: Bounding,
    ) -> Array:
        """`[m]` bounds not below `known`, from diagonal splits of the rows' own.

        Args:
            rows: these rows, or the same with a direction lifted.
            shared: the split to start from.
            known: `[m]` bounds at hand.
            bounding: bounds a row at its own split.
        """
        H, bounds, done = rows.H.cpu().numpy(), known.copy(), 0
        own: dict[int, Tensor] = {}

        def bound(row: int, most: int | None) -> float:
            lone, start = rows.some(np.array([row])), own.get(row, NEAR * shared.d)
            own[row], _, steps = shared_split(
                lone, shared.inverse, start, most=most, stopped=self.control.stopped
            )
            safe = torch.as_tensor(secure(H, own[row].cpu().numpy(), True), device=start.device)
            return bounding(lone, replace(shared, d=safe, steps=steps), row)

        for most in () if relaxation.trivial(rows) else (QUICK, None):
            done = max(done, self._turns(bounds, lambda row, most=most: bound(row, most)))  # type: ignore[misc]
        self.stats["own_splits"] = done
        return bounds

    def _in_blocks(self, direction: Direction, cells: Cells, known: Array, size: int) -> Array:
        """`[m]` bounds from cells in blocks: in blocks of all rows first, then in ones of the rows' own."""
        bounds = known.copy()

        def bound(row: int, size: int, common: HeldGroups | None) -> float:
            own, value = cells.of(row), float(self.values[row])
            return cells_in_blocks(
                direction, row, own, value, size=size, common=common, stopped=self.control.stopped
            )

        for some in (size // 2, size) if size > 2 else (size,):
            common = common_blocks(direction, cells, self.values, size=some, stopped=self.control.stopped)
            kind = "in_blocks_of" if common is None else "in_common_blocks_of"
            self.stats[f"{kind}_{some}"] = self._turns(bounds, partial(bound, size=some, common=common))
        if common is not None:
            turns = self._turns(bounds, partial(bound, size=size, common=None))
            self.stats[f"in_blocks_of_{size}"] = turns
        return bounds

    def _turns(self, bounds: Array, bound: Callable[[int], float]) -> int:
        """Raise bounds in place, the widest gaps first, until they suffice; how many rows had their turn."""

        def work(row: int) -> bool:
            if self._proven(bounds) or self.control.stopped() or bounds[row] >= self.values[row]:
                return False
            bounds[row] = max(bounds[row], bound(row))
            self._enough(bounds)
            return True

        return sum(side_by_side(work, np.argsort(bounds - self.values, kind="stable").tolist()))

    def _proven(self, bounds: Array) -> bool:
        """Whether bounds prove the gap asked for."""
        value, bound = float(self.values.sum()) - self.paid, float(bounds.sum()) - self.paid
        return bound >= self.control.target(value)

    def _enough(self, bounds: Array) -> bool:
        """Report bounds; whether they prove the gap asked for."""
        with self.lock:
            self.control.report(float(self.values.sum()) - self.paid, float(bounds.sum()) - self.paid)
        return self._proven(bounds)


def _plain(lone: SharedRows, split: relaxation.SharedSplit, row: int) -> float:
    """The bound of a lone row at its relaxation's point."""
    return float(relaxation.bounds(lone, split, relaxation.relax(lone, split)[0])[0])
