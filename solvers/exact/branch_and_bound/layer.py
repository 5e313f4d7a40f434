"""One pool for a whole layer, exactly: row curves tightened only where the allocation looks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.allocation import allocate, allocation_value
from solvers.blocks import blocks
from solvers.bounds.curves import lower_curves
from solvers.bounds.split import split_blocks
from solvers.budget import Budget
from solvers.certificate import Proof
from solvers.control import Control
from solvers.curves import row_curves
from solvers.exact.branch_and_bound.block_tree import BlockTree
from solvers.exact.branch_and_bound.forest import block_gap, grow_forest
from solvers.heuristics.greedy import greedy_mask
from solvers.heuristics.local_search import LocalSearch
from solvers.problem import Mask, SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome


class _Curves:
    """The best value, its mask and the best bound known for every row and count."""

    def __init__(self, problem: SubsetProblem, control: Control) -> None:
        self.problem = problem
        self.lower = lower_curves(
            problem.W, problem.hessian, problem.G,
            refit=problem.refit, device=control.device, stopped=control.stopped,
        )  # fmt: skip
        if problem.refit or problem.G is None:
            greedy = row_curves(problem.W, problem.hessian, refit=problem.refit)
            self.values, self.order = greedy.values, greedy.order
        else:
            self.values, self.order = np.full_like(self.lower, np.inf), np.zeros(problem.W.shape, np.int64)
        self.masks: dict[tuple[int, int], Mask] = {}

    def improve(self, row: int, pruned: Mask, value: float) -> None:
        k = int(pruned.sum())
        if value < self.values[row, k] or (row, k) not in self.masks:
            self.values[row, k] = min(value, self.values[row, k])
            self.masks[row, k] = pruned.copy()

    def adopt(self, mask: Mask) -> None:
        counts = mask.sum(axis=1)
        for row, block in enumerate(blocks(self.problem, counts)):
            value = block.value(mask[row])
            if value < self.values[row, counts[row]]:
                self.improve(row, mask[row], value)

    def raise_bound(self, row: int, k: int, bound: float) -> None:
        self.lower[row, k] = max(self.lower[row, k], bound)
        if self.problem.refit:
            np.maximum(self.lower[row, k:], self.lower[row, k], out=self.lower[row, k:])

    def mask(self, counts: NDArray[np.int64]) -> Mask:
        mask = np.zeros(self.problem.W.shape, dtype=bool)
        for row, k in enumerate(counts.tolist()):
            if (row, k) in self.masks:
                mask[row] = self.masks[row, k]
            else:
                mask[row, self.order[row, :k]] = True
        return mask


def solve_layer(
    problem: SubsetProblem, control: Control, *, probe: int, node_limit: int | None = None
) -> Outcome:
    """Branch and bound for a `per_layer` budget.

    With `lower[r][k] <= f_r(k) <= values[r][k]`, allocating over `lower` bounds the optimum and
    allocating over `values` gives a mask. The rows whose interval is open at the bound's allocation
    are solved at that count, and the two programmes are solved again: the bound's allocation is
    optimal once its own rows are closed.
    """
    total = int(problem.pools.prune[0])
    start = greedy_mask(problem, control.device) if control.warm_start is None else control.warm_start
    control.report(problem.value(start), -np.inf, mask=start)
    best, _, _ = LocalSearch().improve(problem, start, control.stopped, control.device)
    control.report(problem.value(best), -np.inf, mask=best)
    curves = _Curves(problem, control)
    curves.adopt(start)
    curves.adopt(best)
    best_value, bound = problem.value(best), -np.inf
    nodes = solved = rounds = 0
    closed: set[tuple[int, int]] = set()
    proofs: list[Proof] = []
    reason: Status | None = None
    while True:
        bound = max(bound, allocation_value(list(curves.lower), total))
        cheapest = allocate(list(curves.values), total)
        if np.isfinite(curves.values[np.arange(problem.m), cheapest]).all():
            candidate = curves.mask(cheapest)
            if (value := problem.value(candidate)) < best_value:
                best, best_value = candidate, value
        control.report(best_value, bound, nodes, best)
        if bound >= control.target(best_value):
            reason = Status.OPTIMAL
        reason = reason or control.stopped()
        if node_limit is not None and nodes >= node_limit:
            reason = reason or Status.NODE_LIMIT
        if reason:
            break
        rounds += 1
        counts = allocate(list(curves.lower), total)
        rows = np.arange(problem.m)
        todo = np.array([r for r in rows.tolist() if (r, int(counts[r])) not in closed], np.int64)
        if not len(todo):
            reason = Status.FEASIBLE
            break
        limit = None if node_limit is None else node_limit - nodes
        trees = _rows(problem, curves, counts, todo, control, probe)
        reason = grow_forest(trees, control.stopped, lambda: None, limit)
        reason = None if reason is Status.OPTIMAL else reason
        for row, tree in zip(todo.tolist(), trees, strict=True):
            curves.improve(row, tree.pruned, tree.value)
            curves.raise_bound(row, int(counts[row]), tree.bound)
            closed.add((row, int(counts[row])))
            if control.certify:
                proofs.append(replace(tree.proof(), rows=np.array([row])))
            nodes += tree.nodes
            solved += 1
    stats: dict[str, Any] = {"nodes": nodes, "rounds": rounds, "row_solves": solved, "split": "own"}
    return Outcome(best, bound, reason, stats, proofs)


def _rows(
    problem: SubsetProblem,
    curves: _Curves,
    counts: NDArray[np.int64],
    todo: NDArray[np.int64],
    control: Control,
    probe: int,
) -> list[BlockTree]:
    """Trees for some rows at their counts, from locally optimal incumbents."""
    gradient = None if problem.G is None else problem.G[todo]
    H = (
        problem.hessian.dense(0)
        if problem.hessian.shared
        else np.stack([problem.hessian.dense(r) for r in todo])
    )
    part = SubsetProblem(
        problem.W[todo], H, Budget.per_row(counts[todo].tolist()), refit=problem.refit, gradient=gradient
    )
    start = greedy_mask(part, control.device)
    mask, _, _ = LocalSearch().improve(part, start, control.stopped, control.device)
    found = blocks(part)
    splits = split_blocks(found, device=control.device)
    values = [block.value(pruned) for block, pruned in zip(found, mask, strict=True)]
    gap = 0.25 * block_gap(control, values)
    trees = []
    for i, (block, split) in enumerate(zip(found, splits, strict=True)):
        row, k = int(todo[i]), int(counts[todo[i]])
        pruned = mask[i]
        if (row, k) in curves.masks and block.value(curves.masks[row, k]) < block.value(pruned):
            pruned = curves.masks[row, k]
        trees.append(
            BlockTree(block, split, pruned, block.value(pruned), gap=gap, probe=probe, record=control.certify)
        )
    return trees
