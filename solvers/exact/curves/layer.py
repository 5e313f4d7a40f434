"""Branch and bound for one budget that rows share: curves tightened only where the allocation looks.

The budget is allotted to the rows by dynamic programming, once over their bounds and once over their values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.allocation import EXACT_WORK, Pool, allocate, allocation_value, exactly, lowered, pool
from solvers.bounds.split import WIDE
from solvers.budget import Budget
from solvers.certificate import Proof
from solvers.control import Control
from solvers.exact.curves.rows import close_curves, gap_of, learn, start_curves
from solvers.exact.curves.search import CurveSearch, freeze, thaw
from solvers.exact.tree.block_tree import DEFAULT, Settings
from solvers.exact.tree.forest import block_gap
from solvers.form.blocks import blocks
from solvers.hessian import Array
from solvers.heuristics.local_search import LocalSearch
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.checkpoint import Arrays, Keeper
from solvers.runtime.parallel import workers
from solvers.solution import Status
from solvers.solver import Outcome

MEMORY = 4 << 30
"""Bytes that trees may take together, by default."""
SHARE = 0.95
"""Of the gap asked for, that each row at the bound's allocation may leave open; the rest is for rounding."""
WORTH = 0.02
"""Share of the gap that has to close for another look at the bounds of rows that are not searched."""
SPEED = 5e8
"""Additions a second of an allocation's programme, about."""


def solve_layer(
    problem: SubsetProblem,
    control: Control,
    settings: Settings = DEFAULT,
    node_limit: int | None = None,
    memory: int = MEMORY,
) -> Outcome:
    """Branch and bound for a `per_layer` budget: see `share_budget`."""
    warm = None if control.warm_start is None else [control.warm_start]
    found = share_budget(
        [problem], control, starts=warm, settings=settings, node_limit=node_limit, memory=memory
    )
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
    settings: Settings = DEFAULT,
    node_limit: int | None = None,
    memory: int = MEMORY,
) -> Shared:
    """Branch and bound for reduced problems that share one budget, the sum of their `per_layer` budgets.

    With `lower_r(k) <= f_r(k) <= values_r(k)` for every row, allocating over `lower` bounds the optimum and
    allocating over `values` gives masks. The rows whose interval is open at the bound's allocation are
    solved at that count, and the two programmes are solved again. Once the bound's allocation has only
    closed rows it is within the gap, as its values are no less than those of the best allocation.

    Args:
        problems: reduced, with `per_layer` budgets.
        control: limits; progress is told of all problems together. A checkpoint is kept of one problem.
        widest: rows of more inputs are not searched, but keep their first bounds; None searches all.
        starts: masks to start from.
        settings: of the trees, but for their memory and whether they are recorded.
        node_limit: nodes over all trees, or None.
        memory: bytes that the trees at work may take together.
    """
    total = sum(int(problem.pools.prune[0]) for problem in problems)
    file = control.checkpoint if len(problems) == 1 else None
    saved = None if file is None else file.load()
    settings = replace(settings, memory=memory // workers(), record=control.certify)
    if saved is None or file is None:
        layers = [start_curves(problem, control, settings) for problem in problems]
    else:
        with file.reading():
            counts = np.full(problems[0].m, problems[0].n // 2)
            layers = [thaw(blocks(problems[0], counts), saved, settings)]
    for layer, start in zip(layers, starts or (), strict=starts is not None):
        for row, pruned in zip(layer, start, strict=True):
            row.offer(pruned)
    rows = [row for layer in layers for row in layer]
    sharing = Sharing(rows, total, widest)
    if saved is not None and file is not None:
        with file.reading():
            sharing.restore(saved)
    for row in rows:
        row.keeps = file is not None
    begun = saved is not None or not control.stopped()
    keeper = Keeper(file if begun else None, lambda: chain(freeze(rows), sharing.save()))
    reason: Status | None = None
    while True:
        sharing.allocate(control.remaining)
        masks = _masks(layers, sharing.counts)
        shown = masks[0] if len(masks) == 1 else None
        control.report(sharing.value, sharing.bound, sum(row.nodes for row in rows), shown)
        if sharing.bound >= control.target(sharing.value):
            reason = Status.OPTIMAL
        if reason := reason or control.stopped():
            break
        if wanted := sharing.open():
            _relax(layers, [(r, k) for r, k in wanted if rows[r].n > WIDE], control)
            reason = _search(sharing, wanted, control, node_limit, keeper)
        elif sharing.worth_relaxing():
            _relax(layers, sharing.still(), control)
            sharing.fix()
        else:
            reason = Status.FEASIBLE
            break
    keeper.save()
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
        "resumed": saved is not None,
        **keeper.stats,
    }
    proofs = (
        [[proof for row in layer for proof in row.proofs()] for layer in layers] if control.certify else []
    )
    return Shared(masks, sharing.bound, reason, stats, proofs)


def _search(
    sharing: Sharing,
    wanted: Sequence[tuple[int, int]],
    control: Control,
    node_limit: int | None,
    keeper: Keeper,
) -> Status | None:
    """Search rows at their counts, with breaks to keep what is found; why that ended early, or None."""
    rows = sharing.rows
    values = [float(row.values[k]) for row, k in zip(rows, sharing.counts.tolist(), strict=True)]
    gap = SHARE * block_gap(control, values)
    while True:
        left = None if node_limit is None else node_limit - sum(row.nodes for row in rows)
        ended = close_curves(
            [rows[r] for r, _ in wanted], [[k] for _, k in wanted], partial(gap_of, gap=gap),
            lambda: control.stopped() or (Status.FEASIBLE if keeper.due() else None),
            progress=control.stopped, node_limit=left,
            executor=None if control.checkpoint is not None else control.executor,
            remaining=lambda: control.remaining,
        )  # fmt: skip
        if ended is not Status.FEASIBLE:
            break
        keeper.save()
    if ended is not Status.OPTIMAL:
        return ended
    sharing.close(wanted)
    return None


def _relax(
    layers: Sequence[Sequence[CurveSearch]], pairs: Sequence[tuple[int, int]], control: Control
) -> None:
    """Splits of rows at counts, those of a layer found together."""
    start = 0
    for layer in layers:
        mine = [(layer[r - start], k) for r, k in pairs if start <= r < start + len(layer)]
        start += len(layer)
        if mine and not control.stopped():
            learn([row for row, _ in mine], [k for _, k in mine], control)


def _masks(layers: Sequence[Sequence[CurveSearch]], counts: NDArray[np.int64]) -> list[Mask]:
    ends = np.cumsum([len(layer) for layer in layers])[:-1]
    return [
        np.stack([row.mask(k) for row, k in zip(layer, mine.tolist(), strict=True)])
        for layer, mine in zip(layers, np.split(counts, ends), strict=True)
    ]


def _improved(problem: SubsetProblem, mask: Mask, control: Control) -> Mask:
    """Best swaps in rows that no search improved."""
    counted = problem.with_budget(Budget.per_row(mask.sum(axis=1).tolist()))
    return LocalSearch().improve(counted, mask, control.stopped)[0]


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
