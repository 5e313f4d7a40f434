"""Bounds of many wide rows of one curvature: a flat direction lifted, and splits of the rows' own in time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np

from solvers.bounds.shared.layer_bound import layer_price, row_bounds
from solvers.bounds.shared.lifted import Cells, Direction, cover, lift
from solvers.bounds.shared.lifted_blocks import cells_in_blocks
from solvers.bounds.shared.own_splits import own_bounds, plain_bound
from solvers.bounds.shared.relaxation import SharedSplit
from solvers.bounds.shared.rows import SharedRows
from solvers.control import Control
from solvers.hessian import Array
from solvers.problem import Mask
from solvers.runtime.parallel import side_by_side
from solvers.runtime.tensors import Tensor

EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class WideRows:
    """Joint rows with pools of their own.

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
    shared: SharedSplit
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
        stopped, timed = self.control.stopped, self.control.deadline is not None
        direction = lift(self.rows, self.shared, stopped)
        cells = None if direction is None else cover(direction, known, self.values, stopped)
        self.stats["lifted"] = cells is not None
        if direction is None or cells is None:
            if timed:
                known, self.stats["own_splits"] = own_bounds(
                    self.rows, self.shared, known, self.values, plain_bound, stopped,
                    thorough=size == 1, news=self._enough,
                )  # fmt: skip
            return known
        bounds = cells.bounds(known, self.values)
        if timed and not self._enough(bounds):
            raising = self._own if size == 1 else self._in_blocks
            bounds = raising(direction, cells, bounds, size)
        return bounds

    @classmethod
    def layer_bound(
        cls,
        rows: SharedRows,
        shared: SharedSplit,
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

    def _enough(self, bounds: Array) -> bool:
        """Report bounds; whether they prove the gap asked for."""
        value, bound = float(self.values.sum()) - self.paid, float(bounds.sum()) - self.paid
        with self.lock:
            self.control.report(value, bound)
        return bound >= self.control.target(value)

    def _own(self, direction: Direction, cells: Cells, known: Array, size: int) -> Array:
        def bounding(lone: SharedRows, split: SharedSplit, row: int) -> float:
            some = slice(row, row + 1)
            at = replace(direction, rows=lone, split=split)
            found = cover(at, np.zeros(1), self.values[some], self.control.stopped)
            return float(known[row] if found is None else found.bounds(known[some], self.values[some])[0])

        bounds, self.stats["own_splits"] = own_bounds(
            direction.rows,
            direction.split,
            known,
            self.values,
            bounding,
            self.control.stopped,
            news=self._enough,
        )
        return bounds

    def _in_blocks(self, direction: Direction, cells: Cells, known: Array, size: int) -> Array:
        bounds = known.copy()
        enough = False

        def work(row: int, size: int) -> bool:
            nonlocal enough
            if enough or self.control.stopped() or bounds[row] >= self.values[row]:
                return False
            own, value = cells.of(row), float(self.values[row])
            found = cells_in_blocks(direction, row, own, value, size=size, stopped=self.control.stopped)
            bounds[row] = max(bounds[row], found)
            enough = self._enough(bounds)
            return True

        for some in (size // 2, size) if size > 2 else (size,):
            order = np.argsort(bounds - self.values, kind="stable").tolist()
            self.stats[f"in_blocks_of_{some}"] = sum(
                side_by_side(lambda row, some=some: work(row, some), order)  # type: ignore[misc]
            )
        return bounds
