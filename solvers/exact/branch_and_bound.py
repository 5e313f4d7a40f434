"""The registered solver `branch-and-bound`: incumbents, splits, trees, and the total over blocks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from solvers.bounds.evaluate import sign_bound
from solvers.bounds.split import WIDE, at_first, split_blocks
from solvers.control import Control
from solvers.exact.batched.frontier import search_in_batches
from solvers.exact.curves.layer import MEMORY, solve_layer
from solvers.exact.grouped.group_tree import GroupTree, suits
from solvers.exact.selections.selection_tree import SelectionTree, suits_depth_first
from solvers.exact.tree.block_tree import BlockTree, Settings
from solvers.exact.tree.forest import Tree, block_gap, grow_forest
from solvers.exact.tree.subtree import root_bound
from solvers.form.blocks import Block, assemble, blocks
from solvers.heuristics.greedy import fits, greedy_mask, opening
from solvers.heuristics.local_search import LocalSearch
from solvers.heuristics.tabu import Tabu
from solvers.problem import Mask, SubsetProblem
from solvers.relaxations.split import compile_lone_rows, round_off
from solvers.runtime.checkpoint import Keeper, pack, unpack
from solvers.runtime.parallel import one_thread_each, side_by_side
from solvers.runtime.plain import plain
from solvers.runtime.rehearsal import rehearse, rehearse_arithmetic
from solvers.runtime.tensors import on_cpu
from solvers.solution import RowBounds, Status
from solvers.solver import Outcome, Solver

INCUMBENT = Tabu(rounds=5, share=0.15)
"""Where trees of narrow rows start: better than where no swap gains, and hardly slower."""
NARROW = 256
"""Inputs up to which they do; the walks of wider rows take longer."""
EASY = 100
"""Inputs up to which a selection's tree seldom takes longer than its walks: it starts where no swap gains."""
GRACE = 0.5
"""Seconds for bounds of rows whose search a limit kept from starting."""
ENGINES = ("auto", "compiled", "batched")
"""Ways to search."""


@dataclass(frozen=True)
class BranchAndBound(Solver):
    """Best-first branch and bound on the split relaxation, block by block.

    Rows are independent under `per_row` and `n_of_m` budgets and are solved side by side; a
    `columns` budget is one tree over the columns; a `per_layer` budget is shared among the rows by
    dynamic programming over bounds that are tightened where the allocation needs them.

    There are two engines. `compiled` grows a tree for every block on the CPU's cores, with splits for
    subtrees. `batched` bounds thousands of nodes of all blocks at once in tensors on the control's device.
    `auto` takes `batched` on any other device than the CPU. Whatever the engine asked for, a `per_layer`
    budget, a certificate and a checkpoint take the compiled one.

    Attributes:
        engine: `auto`, `compiled` or `batched`.
        probe: how often an entry is probed before its pseudo-costs are trusted; None for what suits the
            variant, see `Settings`.
        node_limit: nodes over all trees, or None.
        memory_limit: bytes that the open nodes, splits and proofs of all trees may take together. Trees
            that run short of it search depth-first.
        slice: nodes of 64 entries that a tree processes between two looks at the limits.
        grouped: inputs from which on lone joint rows get splits in groups at every node
            (`solvers.exact.grouped`): few strong nodes instead of many weak ones.
    """

    engine: str = "auto"
    probe: int | None = None
    node_limit: int | None = None
    memory_limit: int = MEMORY
    slice: int = Settings.slice
    grouped: int = 100

    name: ClassVar[str] = "branch-and-bound"
    summary: ClassVar[str] = "own exact search on the split relaxation"
    proves: ClassVar[str] = "optimality"
    resumable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"engine {self.engine!r}: not one of {', '.join(ENGINES)}")

    def prepare(self, like: SubsetProblem | None = None) -> None:
        """See `Solver.prepare`."""
        compile_kernels(like)
        if like is None or (like.refit and like.n >= self.grouped):
            compile_lone_rows()

    def makes_tensors(self, problem: SubsetProblem, device: str) -> bool:
        """See `Solver.makes_tensors`."""
        return self.engine == "batched" or super().makes_tensors(problem, device)

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        with one_thread_each() if problem.n <= WIDE else nullcontext():
            outcome = self._search(problem, control)
        if outcome.reason is Status.OPTIMAL:
            return outcome
        return replace(outcome, bound=max(outcome.bound, sign_bound(problem)))

    def _search(self, problem: SubsetProblem, control: Control) -> Outcome:
        if problem.budget.kind == "per_layer" and not fits(problem, control):
            return Outcome(self._incumbent(problem, control), reason=Status.TIME_LIMIT)
        if problem.budget.kind == "per_layer":
            return solve_layer(
                problem,
                control,
                Settings(probe=self.probe, slice=self.slice),
                self.node_limit,
                self.memory_limit,
            )
        found = blocks(problem)
        began = time.perf_counter()
        saved = None if control.checkpoint is None else control.checkpoint.load()
        if saved is not None and control.checkpoint is not None:
            with control.checkpoint.reading():
                settings = self._settings(control, len(found))
                pairs = zip(found, unpack("tree", saved), strict=True)
                trees: list[Tree] = [
                    _kind(arrays)(block, settings).restore(arrays) for block, arrays in pairs
                ]
        else:
            mask = self._incumbent(problem, control)
            if reason := control.stopped():
                return Outcome(mask, float(sum(block.floor for block in found)), reason)
            if self._in_batches(control):
                splits = split_blocks(found, device=control.device, stopped=control.stopped)
                return search_in_batches(
                    problem, found, splits, mask, control,
                    node_limit=self.node_limit, memory=self.memory_limit,
                )  # fmt: skip
            roots = self._plant(problem, found, mask, control)
            trees = [root for root in roots if not isinstance(root, float)]
            if len(trees) < len(roots):
                bound = sum(root if isinstance(root, float) else root.bound for root in roots)
                return Outcome(mask, float(bound), control.stopped() or Status.TIME_LIMIT)
        seconds = time.perf_counter() - began
        return self._grow(
            problem, found, trees, control, {"resumed": saved is not None, "split_seconds": seconds}
        )

    def settings(self) -> str:
        """See `Solver.settings`."""
        return f"{self.name} probe={self.probe} grouped={self.grouped}"

    def _in_batches(self, control: Control) -> bool:
        if self.engine == "compiled" or control.certify or control.checkpoint is not None:
            return False
        return self.engine == "batched" or plain() or not on_cpu(control.device)

    def _goes_deep(self, problem: SubsetProblem, control: Control) -> bool:
        """Whether trees are depth-first, which improve their incumbents themselves."""
        return suits_depth_first(problem.refit, problem.n) and not (
            control.certify or self._in_batches(control)
        )

    def _settings(self, control: Control, trees: int) -> Settings:
        memory = self.memory_limit // trees
        return Settings(probe=self.probe, memory=memory, share=True, record=control.certify, slice=self.slice)

    def _incumbent(self, problem: SubsetProblem, control: Control) -> Mask:
        start = opening(problem, control)
        if control.warm_start is not None and fits(problem, control):
            start = min((start, greedy_mask(problem)), key=problem.value)
        control.report(problem.value(start), -np.inf, mask=start)
        if plain() or self._goes_deep(problem, control):
            return start
        if control.device == "cpu" and _walks(problem):
            mask = INCUMBENT.run(problem, control.quiet(warm_start=start)).mask
        else:
            mask, _, _ = LocalSearch().improve(problem, start, control.stopped)
        control.report(problem.value(mask), -np.inf, mask=mask)
        return mask

    def _plant(
        self, problem: SubsetProblem, found: list[Block], mask: Mask, control: Control
    ) -> list[Tree | float]:
        """Every block's tree; once stopped, a bound instead, as good as `GRACE` allows."""
        splits = split_blocks(
            found,
            device=control.device,
            stopped=control.stopped,
            tolerance=at_first(problem.refit, problem.n),
        )
        values = [block.value(problem.pools.decisions(mask[block.rows])[0]) for block in found]
        gap, settings = block_gap(control, values), self._settings(control, len(found))
        until = time.perf_counter() + GRACE

        def plant(i: int) -> Tree | float:
            block, split, pruned, value = found[i], splits[i], mask[found[i].rows[0]], values[i]
            if control.stopped():
                return block.floor if time.perf_counter() > until else root_bound(block, split)
            if self._goes_deep(problem, control):
                tree = SelectionTree(block, settings).plant(split, pruned, gap)
                if self.node_limit is None:
                    tree.work()  # all that most rows take
                return tree
            rounded = round_off(block, split)
            if block.value(rounded) < value:
                pruned, value = rounded, block.value(rounded)
            grouped = block.n >= self.grouped and suits(block, split, value, gap)
            return (GroupTree if grouped else BlockTree)(block, settings).plant(split, pruned, value, gap)

        return side_by_side(plant, range(len(found)))

    def _grow(
        self,
        problem: SubsetProblem,
        found: list[Block],
        trees: list[Tree],
        control: Control,
        stats: dict[str, Any],
    ) -> Outcome:
        shown: list[tuple[float, float]] = []

        def progress() -> None:
            total = sum(tree.value for tree in trees)
            bound = sum(tree.bound for tree in trees)
            if not shown or (total, bound) != shown[-1]:
                shown.append((total, bound))
                control.report(total, bound, sum(tree.nodes for tree in trees))

        keeper = Keeper(control.checkpoint, lambda: pack("tree", [tree.arrays() for tree in trees]))
        reason = grow_forest(
            trees, control.stopped, progress, self.node_limit, due=keeper.due, save=keeper.save,
            executor=None if control.checkpoint is not None else control.executor,
            remaining=control.remaining,
        )  # fmt: skip
        keeper.save()
        mask = assemble(problem, found, [tree.pruned for tree in trees])
        bound = float(sum(tree.bound for tree in trees))
        nodes = sum(tree.nodes for tree in trees)
        control.report(problem.value(mask), bound, nodes, mask)
        stats |= {
            "engine": "compiled",
            "nodes": nodes,
            "split": "own",
            "splits": sum(tree.splits for tree in trees),
            **keeper.stats,
        }
        alone = len(found) == problem.m and not problem.pools.coupled
        rows = _rows(trees) if alone else None  # before proofs are made, of which each empties its tree
        proofs = None
        if control.certify:
            proofs = [tree.last_proof() for tree in trees if not isinstance(tree, SelectionTree)]
        return Outcome(mask, bound, reason, stats, proofs, rows)


def compile_kernels(like: SubsetProblem | None = None) -> None:
    """Have ready whatever is compiled for a search: of problems of a kind, or of all."""
    rehearse_arithmetic()
    rehearse(BranchAndBound(), like)
    if like is None or not like.refit:
        rehearse(BranchAndBound(), like, certify=False)  # trees that go deep
    if like is None or _walks(like):
        INCUMBENT.prepare(like)
    if like is None or not _walks(like):
        LocalSearch().prepare(like)


def _walks(problem: SubsetProblem) -> bool:
    """Whether trees of a problem start where walks end."""
    least = 0 if problem.refit else EASY
    return least < problem.n <= NARROW and not INCUMBENT.refuses(problem)


def _kind(arrays: Mapping[str, Any]) -> type[Tree]:
    """The kind of tree that arrays of a checkpoint are of."""
    if "path facts" in arrays:
        return SelectionTree
    return BlockTree if "state" in arrays else GroupTree


def _rows(trees: Sequence[Tree]) -> RowBounds:
    return RowBounds(
        np.array([tree.bound for tree in trees]),
        np.array([tree.done for tree in trees]),
        np.array([tree.nodes for tree in trees]),
        np.array([tree.seconds for tree in trees]),
    )
