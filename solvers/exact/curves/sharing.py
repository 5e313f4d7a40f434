"""How much each of the rows that share a budget prunes, by their curves as far as they are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.allocation import EXACT_WORK, Pool, allocate, allocation_value, exactly, lowered, pool
from solvers.exact.curves.search import CurveSearch
from solvers.hessian import Array
from solvers.runtime.checkpoint import Arrays

WORTH = 0.02
"""Share of the gap that has to close for another look at the bounds of rows that are not searched."""

SPEED = 5e8
"""Additions a second of an allocation's programme, about."""


class Sharing:
    """Two allocations of a shared budget: over the rows' bounds, for a bound, and over values, for masks.

    Rows that are too wide to be searched are pooled into one curve, until `fix` takes their curves anew.

    Args:
        rows: all rows that share the budget.
        total: entries to prune.
        widest: rows of more inputs are not searched; None searches all.

    Attributes:
        searched: of every row, whether it is.
        bound: the best so far; no masks of the budget cost less together.
        looked_at: `[rows]` counts at which the bounds have their least sum.
        value: of the best masks.
        counts: `[rows]` their counts.
        rounds: of searches.
    """

    def __init__(self, rows: Sequence[CurveSearch], total: int, widest: int | None) -> None:
        self.rows, self.total = rows, total
        self.searched = [widest is None or row.n <= widest for row in rows]
        self.bound, self.value, self.rounds = sum(row.block.floor for row in rows), np.inf, 0
        self.looked_at = self.counts = np.zeros(len(rows), np.int64)
        self._closed: set[tuple[int, int]] = set()
        self._relaxed = -np.inf
        entries = sum(row.n for row, searched in zip(rows, self.searched, strict=True) if not searched)
        self._pooled = entries > 0 and entries * min(entries, total) <= EXACT_WORK
        self._fixed: dict[str, Pool] = {}
        self.fix()

    def fix(self) -> None:
        """Allocate anew to the rows that are not searched."""
        if self._pooled:
            still = [row for row, searched in zip(self.rows, self.searched, strict=True) if not searched]
            for name in ("lower", "values"):
                self._fixed[name] = pool([getattr(row, name) for row in still], self.total)

    def allocate(self, seconds: float | None = None) -> None:
        """Both programmes, over the curves as they are.

        Args:
            seconds: that are left for them, about; convex envelopes take the place of programmes that are
                longer. None for any time.
        """
        work = math.inf if seconds is None else SPEED * seconds
        _, self.counts = self._best("values", work)
        self.value = math.fsum(row.values[k] for row, k in zip(self.rows, self.counts.tolist(), strict=True))
        bound, self.looked_at = self._best("lower", work)
        self.bound = max(self.bound, bound)

    def open(self) -> list[tuple[int, int]]:
        """Rows and counts at the bound's allocation that are to be searched."""
        pairs = enumerate(self.looked_at.tolist())
        return [(r, k) for r, k in pairs if self.searched[r] and (r, k) not in self._closed]

    def still(self) -> list[tuple[int, int]]:
        """Rows that are not searched, and their counts at the bound's allocation."""
        return [(r, k) for r, k in enumerate(self.looked_at.tolist()) if not self.searched[r]]

    def close(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Take pairs for searched."""
        self._closed.update(pairs)
        self.rounds += 1

    def save(self) -> list[tuple[str, list[NDArray[Any]]]]:
        """What it knows beyond the rows' curves."""
        return [
            ("closed", [np.array(sorted(self._closed), np.int64).reshape(-1, 2)]),
            ("sharing", [np.array([self.bound, self.rounds, self._relaxed])]),
        ]

    def restore(self, saved: Arrays) -> None:
        """Know what `save` gave."""
        self._closed = {(r, k) for r, k in saved["closed"].tolist()}
        self.bound, rounds, self._relaxed = saved["sharing"].tolist()
        self.rounds = int(rounds)

    def worth_relaxing(self) -> bool:
        """Whether rows that are not searched should be relaxed at their counts, or once more."""
        if all(self.searched) or self.bound - self._relaxed < WORTH * (self.value - self.bound):
            return False
        self._relaxed = self.bound
        return True

    def _best(self, name: str, work: float) -> tuple[float, NDArray[np.int64]]:
        """The least sum of `lower` or `values`, less rounding, and its counts."""
        curves: list[Array] = [getattr(row, name) for row in self.rows]
        if name not in self._fixed:
            if not exactly(curves, self.total, work):
                cost = allocation_value(curves, self.total, work)
                return cost, allocate(curves, self.total, work) if np.isfinite(cost) else self.counts
            best = pool(curves, self.total)
            cost = lowered(float(best.cost[self.total]), best)
            return cost, best.counts(self.total) if np.isfinite(cost) else self.counts
        fixed, searched = self._fixed[name], np.array(self.searched)
        free = [curve for curve, here in zip(curves, self.searched, strict=True) if here]
        both = pool([*free, fixed.cost], self.total)
        shares = both.counts(self.total)
        counts = np.empty(len(curves), np.int64)
        counts[searched], counts[~searched] = shares[:-1], fixed.counts(int(shares[-1]))
        return lowered(float(both.cost[self.total]), both, fixed), counts
