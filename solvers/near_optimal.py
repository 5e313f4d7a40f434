"""`near_optimal()`: every mask whose value is within epsilon of the optimum, proven to be all there are.

The set of near-optimal solutions (*solution pool* in mixed-integer programming, *Rashomon set* in
statistics) says how much of the best mask is a matter of course, and how much an accident. It comes from
the branch and bound that proves optima, with one change: a node is closed when its bound passes the
optimum's value and epsilon, not the incumbent's value. Leaves that are left have a single mask each.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from solvers.bounds.split import WIDE, at_first, split_blocks
from solvers.budget import UNITS
from solvers.certificate.proof import IMPOSSIBLE
from solvers.control import Callback, Control, check_limits, interruptible, is_number
from solvers.exact.branch_and_bound import BranchAndBound, compile_kernels
from solvers.exact.tree.block_tree import MEMORY, BlockTree, Settings
from solvers.exact.tree.forest import grow_forest
from solvers.form.blocks import blocks
from solvers.form.reduction import Reduction, reduce
from solvers.hessian import Array
from solvers.problem import DIGITS, Mask, SubsetProblem
from solvers.runtime.caches import spare_full_disks
from solvers.runtime.tensors import load_torch, tensors_help
from solvers.solution import Status
from solvers.solve import solve
from solvers.summary import first, number, percent, summary

LIMIT = 10_000
"""Masks of a row at most, unless asked otherwise."""
TIES = 1e-9
"""Relative difference of values that is taken for rounding: ties of the optimum are among its equals."""
GAP = 1e-6
"""Relative gap of the solve that comes before."""


@dataclass(frozen=True)
class NearRow:
    """The near-optimal masks of one row, or the masks that all rows share.

    Attributes:
        masks: `[s, n]`, True where pruned, the best first.
        values: `[s]` what each costs the row (all rows, where they share it), recomputed from the problem.
        complete: whether there are no others.
        beyond: no mask that is not among them costs less; the threshold where they are complete.
    """

    masks: Mask
    values: Array
    complete: bool
    beyond: float

    @property
    def kept(self) -> Array:
        """`[n]` the share of masks that keep each input: 1 where all do, 0 where none does."""
        return np.asarray((~self.masks).mean(axis=0))


@dataclass(frozen=True)
class NearOptimal:
    """All masks within epsilon of the optimum, a set a row.

    A mask of the whole problem takes one mask of every row's set. Rows are independent, so that a mask of the
    whole is within epsilon exactly if its rows' excesses over their best add up to no more than that
    (`combinations`).

    Attributes:
        rows: one set a row, in their order; a single set where all rows share one mask.
        value: the optimum: the sum of the rows' best values.
        epsilon: the excess that a mask may have, in units of the value.
        complete: whether every set has all its masks: the proof.
        status: `OPTIMAL` if complete, else what stopped the search.
        seconds: wall time.
        stats: nodes of the trees, and the like.
    """

    rows: tuple[NearRow, ...]
    value: float
    epsilon: float
    complete: bool
    status: Status
    seconds: float
    stats: Mapping[str, Any] = field(default_factory=dict)
    _m: int = field(default=1, kw_only=True, repr=False)

    def __repr__(self) -> str:
        count = [len(row.masks) for row in self.rows]
        said = "all of them" if self.complete else f"not all of them: {self.status.remedy}"
        sizes = [
            f"row {r}: {n} masks, values from {number(row.values.min(initial=math.inf))} to "
            f"{number(row.values.max(initial=-math.inf))}, {int((row.kept == 1.0).sum())} inputs in all"
            for r, (n, row) in enumerate(zip(count, self.rows, strict=True))
        ]
        return summary(
            f"NearOptimal: {said}",
            f"value {number(self.value)}, up to {number(self.epsilon)} above "
            f"({percent(self.epsilon / abs(self.value) if self.value else math.inf)})",
            *first(sizes),
            f"{self.seconds:.2f} s",
        )

    def combinations(self, limit: int | None = None) -> Iterator[tuple[float, Mask]]:
        """Masks `[m, n]` of the whole problem within epsilon, with their values; the best first.

        Args:
            limit: how many at most.
        """
        starts = [float(row.values[0]) if len(row.values) else math.inf for row in self.rows]
        if not all(map(math.isfinite, starts)):
            return
        total = math.fsum(starts)
        allowed = self.epsilon + TIES * abs(total)
        heap: list[tuple[float, tuple[int, ...]]] = [(0.0, (0,) * len(self.rows))]
        told = 0
        while heap and (limit is None or told < limit):
            excess, at = heapq.heappop(heap)
            chosen = np.stack([row.masks[i] for row, i in zip(self.rows, at, strict=True)])
            yield total + excess, np.repeat(chosen, self._m, axis=0) if len(chosen) < self._m else chosen
            told += 1
            last = max((r for r, i in enumerate(at) if i), default=0)
            for r in range(last, len(at)):  # each combination has one parent: its last step taken back
                values, i = self.rows[r].values, at[r] + 1
                if i < len(values):
                    more = excess + float(values[i] - values[i - 1])
                    if more <= allowed:
                        heapq.heappush(heap, (more, (*at[:r], i, *at[r + 1 :])))


def near_optimal(
    problem: SubsetProblem,
    epsilon: float | None = None,
    *,
    absolute: float | None = None,
    limit: int = LIMIT,
    time_limit: float | None = None,
    seed: int = 0,
    callback: Callback | None = None,
) -> NearOptimal:
    """All masks of a budget whose value is at most the optimum and epsilon, proven complete.

    For rows of up to 160 inputs, and in practice 40 to 64: the number of such masks, and the work, grow with
    epsilon. Of a problem whose rows have budgets of their own, a row's set are the masks that it has in some
    near-optimal mask of the whole.

    Values are recomputed from the problem, and bounds hold when arithmetic rounds. Values of a row that
    differ by rounding (1e-9 of them) count as equal, so that epsilon 0 gives all optima.

    Args:
        problem: what to prune; its rows, or columns, as for `branch-and-bound`, but `per_layer` budgets of
            several rows.
        epsilon: excess over the optimum, relative to its absolute value; 0.01 if neither this nor `absolute`
            is given.
        absolute: the excess in units of the value, in place of `epsilon`.
        limit: masks of a row at most; the best of those found are given, and the set is not complete.
        time_limit: seconds of wall time, of which the optimum may take half; None for no limit.
        seed: of every random choice.
        callback: called now and then with a `Progress`; return True to stop.

    Returns:
        A `NearOptimal`. After a limit or Ctrl-C, the masks found so far, with `complete` False.

    Raises:
        ValueError: a bad epsilon or limit, a budget or size that there is no tree for, or a curvature that is
            too close to singular for a split.
    """
    _check(problem, epsilon, absolute, limit)
    check_limits(time_limit, 0.0, seed)
    if tensors_help(problem, "cpu"):
        load_torch()
    spare_full_disks()
    compile_kernels(problem)
    start = time.perf_counter()
    best = solve(
        problem, BranchAndBound(engine="compiled"), gap=GAP, seed=seed, callback=callback,
        time_limit=None if time_limit is None else 0.5 * time_limit,
    )  # fmt: skip
    deadline = None if time_limit is None else start + time_limit
    control = Control(seed=seed, callback=callback, started=start, deadline=deadline)
    pieces = [problem] if problem.pools.coupled or problem.m == 1 else _rows(problem)
    values = [
        piece.value(best.mask if len(pieces) == 1 else best.mask[r : r + 1]) for r, piece in enumerate(pieces)
    ]
    nodes, status = 0, Status.INTERRUPTED if best.status is Status.INTERRUPTED else None
    with interruptible(control):
        while True:
            total = math.fsum(values)
            room = absolute if absolute is not None else (0.01 if epsilon is None else epsilon) * abs(total)
            found, reason, worked = _search(problem, pieces, values, room, limit, control, status)
            nodes += worked
            better = [min([value, *row.values.tolist()]) for value, row in zip(values, found, strict=True)]
            if absolute is not None or abs(math.fsum(better)) <= abs(total) or reason is not Status.OPTIMAL:
                break
            values = better  # of a negative optimum that was found only now, epsilon is a little more
    total = math.fsum(better)
    if absolute is None:
        room = (0.01 if epsilon is None else epsilon) * abs(total)
    rows = tuple(_within(row, low, room, limit) for row, low in zip(found, better, strict=True))
    if any(not len(row.masks) for row in rows) and reason is Status.OPTIMAL:
        raise ArithmeticError("near_optimal: a finished tree has lost the optimum")
    complete = reason is Status.OPTIMAL and all(row.complete for row in rows)
    if reason is Status.OPTIMAL and not complete:
        reason = Status.NODE_LIMIT
    return NearOptimal(
        rows, total, float(room), complete, reason, time.perf_counter() - start,
        {"nodes": nodes, "solve": best.status.value}, _m=problem.m,
    )  # fmt: skip


def _check(problem: SubsetProblem, epsilon: float | None, absolute: float | None, limit: int) -> None:
    for name, value in (("epsilon", epsilon), ("absolute", absolute)):
        if value is not None and not (is_number(value) and 0.0 <= value < math.inf):
            raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")
    if epsilon is not None and absolute is not None:
        raise ValueError(f"give epsilon ({epsilon!r}) or absolute ({absolute!r}), not both")
    if isinstance(limit, bool) or not isinstance(limit, int | np.integer) or limit < 1:
        raise ValueError(f"limit must be a whole number of masks >= 1, got {limit!r}")
    if problem.budget.kind == "per_layer" and problem.m > 1:
        raise ValueError(
            "budget 'per_layer' ties all rows together; take the masks of a row: problem.row(0, prune=k)"
        )
    if problem.budget.kind == UNITS:
        raise ValueError("budget of columns in units has no tree; take one of columns")
    if problem.hessian.implicit or len(problem.prunable) > WIDE:
        raise ValueError(f"rows have {problem.n} inputs; near-optimal masks are found of up to {WIDE}")


def _rows(problem: SubsetProblem) -> list[SubsetProblem]:
    return [problem.row(r) for r in range(problem.m)]


def _search(
    problem: SubsetProblem,
    pieces: Sequence[SubsetProblem],
    values: Sequence[float],
    room: float,
    limit: int,
    control: Control,
    status: Status | None,
) -> tuple[list[NearRow], Status, int]:
    """Every piece's masks of at most its value and room, why it ended, and the nodes that it took."""
    reduction = reduce(problem)
    found = blocks(reduction.problem)
    splits = split_blocks(found, stopped=control.stopped, tolerance=at_first(problem.refit, problem.n))
    trees = []
    for r, (block, split, value) in enumerate(zip(found, splits, values, strict=True)):
        offset = reduction.offset if len(pieces) == 1 else float(reduction.offsets[r])
        tree = BlockTree(block, Settings(memory=MEMORY // len(found), record=True, share=True))
        tree.plant(split, np.zeros(block.n, dtype=bool), value - offset, GAP)
        size = abs(value) + room + abs(offset)
        top = value + room - offset + reduction.margin + tree.formation + 2.0 * DIGITS * size
        top = math.nextafter(
            top + reduction.problem.rounding, math.inf
        )  # a bound that equals it closes nothing
        tree.state.upper, tree.state.cutoff = -math.inf, top
        trees.append(tree)
    seen = {"nodes": 1000, "many": False}

    def stopped() -> Status | None:
        return status or control.stopped() or (Status.NODE_LIMIT if seen["many"] else None)

    def progress() -> None:
        total = sum(tree.nodes for tree in trees)
        if total > 2 * seen["nodes"]:
            seen["nodes"] = total
            seen["many"] = any(len(_leaves(tree)) > 2 * limit for tree in trees)

    reason = grow_forest(trees, stopped, progress)
    rows: list[NearRow] = []
    for piece, tree, value in zip(pieces, trees, values, strict=True):
        masks, open_bound = _masks(tree, reduction, piece)
        priced = np.array([piece.value(mask) for mask in masks], dtype=np.float64)
        kept = masks[:, 0] if len(masks) else np.zeros((0, piece.n), dtype=bool)
        offset = reduction.offset if len(pieces) == 1 else float(reduction.offsets[len(rows)])
        beyond = min(value + room, open_bound + offset - reduction.margin)
        rows.append(NearRow(kept, priced, bool(tree.done), max(beyond, piece.floor)))
    return rows, reason, sum(tree.nodes for tree in trees)


def _masks(tree: BlockTree, reduction: Reduction, piece: SubsetProblem) -> tuple[Mask, float]:
    """`[s, rows, n]` masks that a tree has come down to, and a bound on what it has not."""
    decisions = _leaves(tree)
    columns = reduction.columns if reduction.columns is not None else reduction.original.prunable
    masks = np.zeros((len(decisions), piece.m, piece.n), dtype=bool)
    masks[:, :, columns] = decisions[:, None, :]
    return masks, tree.storage.least_open - tree.formation if not tree.done else math.inf


def _leaves(tree: BlockTree) -> Mask:
    """`[s, n]` masks of the leaves whose path fixes every entry, True where pruned."""
    count, n, log, block = int(tree.state.tree), tree.block.n, tree.log, tree.block
    entry, pruned, kept = log.entry[:count], log.pruned[:count], log.kept[:count]
    inner = np.flatnonzero(entry >= 0)
    parent, gone = np.zeros(count, np.int64), np.zeros(count, dtype=bool)
    parent[pruned[inner]] = parent[kept[inner]] = inner
    gone[pruned[inner]] = True
    depth, nodes, level = np.zeros(count, np.int64), np.zeros(1, np.int64), 0
    while len(nodes):
        depth[nodes] = level
        nodes = nodes[entry[nodes] >= 0]
        nodes, level = np.concatenate([pruned[nodes], kept[nodes]]), level + 1
    leaves = np.flatnonzero((entry < 0) & (depth == n) & (log.vector[:count] != IMPOSSIBLE))
    decisions, at = np.zeros((len(leaves), n), dtype=bool), leaves
    for _ in range(n):
        up = parent[at]
        decisions[np.arange(len(leaves)), entry[up]] = gone[at]
        at = up
    pools = block.labels[:, None] == np.arange(len(block.keep))
    return np.asarray(decisions[(decisions.astype(np.int64) @ pools == block.prune).all(axis=1)])


def _within(row: NearRow, best: float, room: float, limit: int) -> NearRow:
    """The masks of a row that are within room of its best, in the order of their values."""
    order = np.argsort(row.values, kind="stable")
    order = order[row.values[order] <= best + room + TIES * abs(best)]
    complete, beyond = row.complete and len(order) <= limit, min(row.beyond, best + room)
    if len(order) > limit:
        beyond = min(beyond, float(row.values[order[limit]]))
    return NearRow(row.masks[order[:limit]], row.values[order[:limit]], complete, beyond)
