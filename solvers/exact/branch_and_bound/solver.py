"""The registered solver: incumbents, splits, trees, and the total over blocks."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from solvers.blocks import assemble, blocks
from solvers.bounds.split import WIDE, split_blocks
from solvers.budget import Budget
from solvers.control import Control
from solvers.exact.branch_and_bound.block_tree import BlockTree
from solvers.exact.branch_and_bound.forest import block_gap, grow_forest
from solvers.exact.branch_and_bound.layer import solve_layer
from solvers.heuristics.greedy import greedy_mask
from solvers.heuristics.local_search import LocalSearch
from solvers.heuristics.relaxation import round_off
from solvers.parallel import one_thread_each
from solvers.problem import SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome, Solver

MEMORY = 4 << 30
"""Bytes that trees may take together, by default."""


@dataclass(frozen=True)
class BranchAndBound(Solver):
    """Best-first branch and bound on the split relaxation, block by block.

    Rows are independent under `per_row` and `n_of_m` budgets and are solved side by side; a
    `columns` budget is one tree over the columns; a `per_layer` budget is shared among the rows by
    dynamic programming over bounds that are tightened where the allocation needs them.

    Attributes:
        probe: how often an entry is probed before its pseudo-costs are trusted.
        node_limit: nodes over all trees, or None.
        memory_limit: bytes that the open nodes, splits and proofs of all trees may take together. Trees
            that run short of it search depth-first.
    """

    probe: int = 1
    node_limit: int | None = None
    memory_limit: int = MEMORY

    name: ClassVar[str] = "branch-and-bound"
    summary: ClassVar[str] = "own exact search on the split relaxation"
    proves: ClassVar[str] = "optimality"

    def prepare(self) -> None:
        """See `Solver.prepare`."""
        compile_kernels()

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        with one_thread_each() if problem.n <= WIDE else nullcontext():
            return self._search(problem, control)

    def _search(self, problem: SubsetProblem, control: Control) -> Outcome:
        if problem.budget.kind == "per_layer":
            return solve_layer(problem, control, probe=self.probe, node_limit=self.node_limit)
        start = greedy_mask(problem, control.device)
        if control.warm_start is not None:
            start = min((start, control.warm_start), key=problem.value)
        control.report(problem.value(start), -np.inf, mask=start)
        mask, _, _ = LocalSearch().improve(problem, start, control.stopped, control.device)
        control.report(problem.value(mask), -np.inf, mask=mask)
        if reason := control.stopped():
            return Outcome(mask, reason=reason)

        found = blocks(problem)
        began = time.perf_counter()
        splits = split_blocks(found, device=control.device)
        seconds = time.perf_counter() - began
        pools = problem.pools
        trees = []
        values = [block.value(pools.decisions(mask[block.rows])[0]) for block in found]
        gap = block_gap(control, values)
        for block, split, value in zip(found, splits, values, strict=True):
            pruned = mask[block.rows[0]]
            rounded = round_off(block, split)
            if block.value(rounded) < value:
                pruned, value = rounded, block.value(rounded)
            trees.append(
                BlockTree(
                    block,
                    split,
                    pruned,
                    value,
                    gap=gap,
                    probe=self.probe,
                    memory=self.memory_limit // len(found),
                    share=True,
                    record=control.certify,
                )
            )

        def progress() -> None:
            total = sum(tree.value for tree in trees)
            bound = sum(tree.bound for tree in trees)
            if not shown or (total, bound) != shown[-1]:
                shown.append((total, bound))
                control.report(total, bound, sum(tree.nodes for tree in trees))

        shown: list[tuple[float, float]] = []
        reason = grow_forest(trees, control.stopped, progress, self.node_limit)
        mask = assemble(problem, found, [tree.pruned for tree in trees])
        bound = float(sum(tree.bound for tree in trees))
        control.report(problem.value(mask), bound, sum(tree.nodes for tree in trees), mask)
        stats: dict[str, Any] = {
            "nodes": sum(tree.nodes for tree in trees),
            "split": "own",
            "splits": sum(tree.splits for tree in trees),
            "split_seconds": seconds,
        }
        if len(found) == problem.m and not pools.coupled:
            stats["rows"] = [_row(tree, gap) for tree in trees]
        proofs = [tree.proof() for tree in trees] if control.certify else None
        return Outcome(mask, bound, reason, stats, proofs)


@cache
def compile_kernels() -> None:
    """Have every compiled kernel ready, by one tiny problem of each variant."""
    H = np.array([[2.0, 1.0, 0.5], [1.0, 2.0, 1.0], [0.5, 1.0, 2.0]])
    for refit in (True, False):
        problem = SubsetProblem(np.array([[1.0, 2.0, -1.0]]), H, Budget.per_row(1), refit=refit)
        BranchAndBound().run(problem, Control())


def _row(tree: BlockTree, gap: float) -> dict[str, Any]:
    return {
        "value": tree.value,
        "bound": tree.bound,
        "nodes": tree.nodes,
        "splits": tree.splits,
        "seconds": tree.seconds,
        "status": (Status.OPTIMAL if tree.done else Status.FEASIBLE).value,
    }
