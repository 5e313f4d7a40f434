"""One budget for the rows of a layer, or of several: curves tightened only where the allocation looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.allocation import EXACT_WORK, Pool, allocate, allocation_value, pool
from solvers.bounds.split import WIDE
from solvers.budget import Budget
from solvers.certificate import Proof
from solvers.control import Control
from solvers.exact.branch_and_bound.curve import close_curves, gap_of, learn, start_curves
from solvers.exact.branch_and_bound.forest import block_gap
from solvers.exact.branch_and_bound.row_curve import RowCurve
from solvers.hessian import Array
from solvers.heuristics.local_search import LocalSearch
from solvers.problem import Mask, SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome

SHARE = 0.95
"""Of the gap asked for, that each row at the bound's allocation may leave open; the rest is for rounding."""

WORTH = 0.02
"""Share of the gap that has to close for another look at the bounds of rows that are not searched."""


def solve_layer(
    problem: SubsetProblem, control: Control, *, probe: int, node_limit: int | None = None
) -> Outcome:
    """Branch and bound for a `per_layer` budget: see `share_budget`."""
    warm = None if control.warm_start is None else [control.warm_start]
    found = share_budget([problem], control, starts=warm, probe=probe, node_limit=node_limit)
    proofs = found.proofs[0] if control.certify else None
    return Outcome(found.masks[0], found.bound, found.reason, found.stats, proofs)


@dataclass(frozen=True)
class Shared:
    """How several reduced problems share their budgets.

    Attributes:
        masks: of every problem.
        bound: no masks of the budget cost less together.
        reason: why the search stopped.
        stats: counts and choices.
        proofs: of every problem, where they were recorded.
    """

    masks: list[Mask]
    bound: float
    reason: Status
    stats: dict[str, Any]
    proofs: list[list[Proof]]


def share_budget(
    problems: Sequence[SubsetProblem],
    control: Control,
    *,
    widest: int | None = None,
    starts: Sequence[Mask] | None = None,
    probe: int = 1,
    node_limit: int | None = None,
) -> Shared:
    """Branch and bound for reduced problems that share one budget, the sum of their `per_layer` budgets.

    With `lower_r(k) <= f_r(k) <= values_r(k)` for every row, allocating over `lower` bounds the optimum and
    allocating over `values` gives masks. The rows whose interval is open at the bound's allocation are
    solved at that count, and the two programmes are solved again. Once the bound's allocation has only
    closed rows it is within the gap, as its values are no less than those of the best allocation.

    Args:
        problems: reduced, with `per_layer` budgets.
        control: limits; progress is told of all problems together.
        widest: rows of more inputs are not searched, but keep their first bounds; None searches all.
        starts: masks to start from.
        probe: probes of an entry before its pseudo-costs are trusted.
        node_limit: nodes over all trees, or None.
    """
    total = sum(int(problem.pools.prune[0]) for problem in problems)
    layers = [start_curves(problem, control, probe=probe) for problem in problems]
    for layer, start in zip(layers, starts or (), strict=starts is not None):
        for row, pruned in zip(layer, start, strict=True):
            row.offer(pruned)
    rows = [row for layer in layers for row in layer]
    sharing = _Sharing(rows, total, widest)
    reason: Status | None = None
    while True:
        sharing.allocate()
        masks = _masks(layers, sharing.counts)
        shown = masks[0] if len(masks) == 1 else None
        control.report(sharing.value, sharing.bound, sum(row.nodes for row in rows), shown)
        if sharing.bound >= control.target(sharing.value):
            reason = Status.OPTIMAL
        if reason := reason or control.stopped():
            break
        if wanted := sharing.open():
            _relax(layers, [(r, k) for r, k in wanted if rows[r].n > WIDE], control)
            reason = _search(sharing, wanted, control, node_limit)
        elif sharing.worth_relaxing():
            _relax(layers, sharing.still(), control)
            sharing.fix()
        else:
            reason = Status.FEASIBLE
            break
    if not all(sharing.searched):
        masks = [
            _improved(problem, mask, control) if problem.n > (widest or 0) else mask
            for problem, mask in zip(problems, masks, strict=True)
        ]
    stats: dict[str, Any] = {
        "nodes": sum(row.nodes for row in rows),
        "rounds": sharing.rounds,
        "row_solves": sum(row.trees for row in rows),
        "split": "own",
    }
    proofs = (
        [[proof for row in layer for proof in row.proofs()] for layer in layers] if control.certify else []
    )
    return Shared(masks, sharing.bound, reason, stats, proofs)


class _Sharing:
    """Allocations over the rows' curves; rows that are not searched are allocated to once for all.

    Attributes:
        searched: of every row, whether it is.
        bound: the best so far.
        looked_at: `[rows]` counts of the bound's allocation.
        value: of the best masks.
        counts: `[rows]` their counts.
        rounds: of searches.
    """

    def __init__(self, rows: Sequence[RowCurve], total: int, widest: int | None) -> None:
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

    def allocate(self) -> None:
        """Both programmes, over the curves as they are."""
        self.value, self.counts = self._best("values")
        bound, self.looked_at = self._best("lower")
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

    def worth_relaxing(self) -> bool:
        """Whether rows that are not searched should be relaxed at their counts, or once more."""
        if all(self.searched) or self.bound - self._relaxed < WORTH * (self.value - self.bound):
            return False
        self._relaxed = self.bound
        return True

    def _best(self, name: str) -> tuple[float, NDArray[np.int64]]:
        """The least sum of `lower` or `values`, less rounding, and its counts."""
        curves: list[Array] = [getattr(row, name) for row in self.rows]
        if name not in self._fixed:
            cost = allocation_value(curves, self.total)
            return cost, allocate(curves, self.total) if np.isfinite(cost) else self.counts
        fixed, searched = self._fixed[name], np.array(self.searched)
        free = [curve for curve, here in zip(curves, self.searched, strict=True) if here]
        both = pool([*free, fixed.cost], self.total)
        shares = both.counts(self.total)
        counts = np.empty(len(curves), np.int64)
        counts[searched], counts[~searched] = shares[:-1], fixed.counts(int(shares[-1]))
        return float(both.cost[self.total]) - both.rounding - fixed.rounding, counts


def _search(
    sharing: _Sharing, wanted: Sequence[tuple[int, int]], control: Control, node_limit: int | None
) -> Status | None:
    """Search rows at their counts; why that ended early, or None."""
    rows = sharing.rows
    values = [float(row.values[k]) for row, k in zip(rows, sharing.counts.tolist(), strict=True)]
    gap = SHARE * block_gap(control, values)
    left = None if node_limit is None else node_limit - sum(row.nodes for row in rows)
    ended = close_curves(
        [rows[r] for r, _ in wanted], [[k] for _, k in wanted], lambda row, k: gap_of(row, k, gap),
        control.stopped, node_limit=left,
    )  # fmt: skip
    sharing.close(wanted)
    return None if ended is Status.OPTIMAL else ended


def _relax(layers: Sequence[Sequence[RowCurve]], pairs: Sequence[tuple[int, int]], control: Control) -> None:
    """Splits of rows at counts, those of a layer found together."""
    start = 0
    for layer in layers:
        mine = [(layer[r - start], k) for r, k in pairs if start <= r < start + len(layer)]
        start += len(layer)
        if mine and not control.stopped():
            learn([row for row, _ in mine], [k for _, k in mine], control)


def _masks(layers: Sequence[Sequence[RowCurve]], counts: NDArray[np.int64]) -> list[Mask]:
    ends = np.cumsum([len(layer) for layer in layers])[:-1]
    return [
        np.stack([row.mask(k) for row, k in zip(layer, mine.tolist(), strict=True)])
        for layer, mine in zip(layers, np.split(counts, ends), strict=True)
    ]


def _improved(problem: SubsetProblem, mask: Mask, control: Control) -> Mask:
    """Best swaps in rows that no search improved."""
    counted = SubsetProblem(
        problem.W, problem.hessian, Budget.per_row(mask.sum(axis=1).tolist()),
        refit=problem.refit, gradient=problem.G,
    )  # fmt: skip
    return LocalSearch().improve(counted, mask, control.stopped, control.device)[0]
