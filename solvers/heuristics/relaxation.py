"""The split relaxation alone: a certified bound at any size, and the mask it rounds to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from solvers.allocation import allocation_value
from solvers.blocks import Block, assemble, blocks
from solvers.bounds.curves import lower_curves
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.group_ascent import group_split
from solvers.bounds.split import WIDE, Split, representable, split_blocks
from solvers.control import Control
from solvers.heuristics.greedy import greedy_mask
from solvers.parallel import side_by_side
from solvers.problem import Mask, SubsetProblem
from solvers.solver import Outcome, Solver


@dataclass(frozen=True)
class Relaxation(Solver):
    """The perspective (joint) or convexified (selection) relaxation at its best split.

    With a time limit, lone joint rows that are wide get splits in blocks of their own, for as long as
    it lasts and the widest gaps first (`solvers.bounds.groups`).

    Attributes:
        group: inputs of a block, a power of two; 1 for diagonal splits only.
    """

    group: int = 4

    name: ClassVar[str] = "relaxation"
    summary: ClassVar[str] = "certified bound of the split relaxation, and its rounded mask"
    proves: ClassVar[str] = "a bound"

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        greedy = greedy_mask(problem, control.device)
        control.report(problem.value(greedy), -np.inf, mask=greedy)
        if problem.budget.kind == "per_layer":
            curves = lower_curves(
                problem.W,
                problem.hessian,
                problem.G,
                refit=problem.refit,
                device=control.device,
                stopped=control.stopped,
            )
            bound = allocation_value(list(curves), int(problem.pools.prune[0]))
            control.report(problem.value(greedy), bound, mask=greedy)
            return Outcome(greedy, bound)
        found = blocks(problem)
        splits = split_blocks(found, device=control.device)
        bounds = [
            lower_bound(block, split.d, relaxed_point(block, split.d, split.z))
            for block, split in zip(found, splits, strict=True)
        ]
        rounded = assemble(problem, found, [round_off(b, s) for b, s in zip(found, splits, strict=True)])
        mask = min((greedy, rounded), key=problem.value)
        bound = float(np.sum(bounds))
        control.report(problem.value(mask), bound, mask=mask)
        stats: dict[str, Any] = {
            "split": "shared" if representable(found) else "own",
            "steps": splits[0].steps,
        }
        if control.deadline is not None and self.group > 1 and groupable(found):
            values = [block.value(mask[block.rows[0]]) for block in found]
            raised = self._raise(found, splits, values, bounds, control)
            stats |= {"split": "blocks", "blocks_of": self.group, "block_splits": raised}
            bound = float(np.sum(bounds))
            control.report(problem.value(mask), bound, mask=mask)
        if not problem.pools.coupled:
            stats["rows"] = [{"bound": float(b)} for b in bounds]
        return Outcome(mask, bound, stats=stats)

    def _raise(
        self,
        found: list[Block],
        splits: list[Split],
        values: list[float],
        bounds: list[float],
        control: Control,
    ) -> int:
        """Lift rows' bounds by splits in blocks while time lasts; how many rows were come to."""
        order = np.argsort([b - v for b, v in zip(bounds, values, strict=True)], kind="stable").tolist()
        begun = []

        def lift(i: int) -> None:
            if control.stopped() or values[i] <= 0.0 or found[i].trivial:
                return
            begun.append(i)
            _, bound = group_split(
                found[i], splits[i].d[0], splits[i].z, values[i], size=self.group, stopped=control.stopped
            )
            bounds[i] = max(bounds[i], bound)

        side_by_side(lift, order)
        return len(begun)


def groupable(found: list[Block]) -> bool:
    """Whether blocks are lone joint rows too wide for the tree."""
    return all(b.refit and b.n > WIDE and b.B.shape == (1, b.n, 1) for b in found)


def round_off(block: Block, split: Split) -> Mask:
    """Prune the least relaxed indicators of every pool: `[n]`, True where pruned."""
    pruned = np.zeros(block.n, dtype=bool)
    for p, count in enumerate(block.prune):
        pool = np.flatnonzero(block.labels == p)
        pruned[pool[np.argsort(split.z[pool], kind="stable")[:count]]] = True
    return pruned
