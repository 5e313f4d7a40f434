"""The split relaxation alone: a certified bound at any size, and the mask it rounds to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from solvers.allocation import allocation_value
from solvers.blocks import Block, assemble, blocks
from solvers.bounds.curves import lower_curves
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.split import Split, representable, split_blocks
from solvers.control import Control
from solvers.heuristics.greedy import greedy_mask
from solvers.problem import Mask, SubsetProblem
from solvers.solver import Outcome, Solver


@dataclass(frozen=True)
class Relaxation(Solver):
    """The perspective (joint) or convexified (selection) relaxation at its best split."""

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
        if not problem.pools.coupled:
            stats["rows"] = [{"bound": float(b)} for b in bounds]
        return Outcome(mask, bound, stats=stats)


def round_off(block: Block, split: Split) -> Mask:
    """Prune the least relaxed indicators of every pool: `[n]`, True where pruned."""
    pruned = np.zeros(block.n, dtype=bool)
    for p, count in enumerate(block.prune):
        pool = np.flatnonzero(block.labels == p)
        pruned[pool[np.argsort(split.z[pool], kind="stable")[:count]]] = True
    return pruned
