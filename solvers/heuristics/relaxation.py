"""The split relaxation alone: a certified bound at any size, and the mask it rounds to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from solvers.allocation import allocation_value
from solvers.blocks import Block, assemble, blocks
from solvers.bounds.curves import lower_curves
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.split import WIDE, Split, representable, split_blocks
from solvers.certificate import Proof, group_proof, root_proof
from solvers.control import Control
from solvers.heuristics.factor_search import FactorSearch
from solvers.heuristics.greedy import greedy_mask
from solvers.heuristics.wide_row import WideRow
from solvers.parallel import side_by_side
from solvers.problem import Mask, SubsetProblem
from solvers.solver import Outcome, Solver


@dataclass(frozen=True)
class Relaxation(Solver):
    """The perspective (joint) or convexified (selection) relaxation at its best split.

    With a time limit, lone joint rows that are wide get splits in blocks of their own
    (`solvers.heuristics.wide_row`), for as long as it lasts and the widest gaps first: all rows in blocks of
    `group` inputs, again once entries are fixed, and at last in blocks of twice as many. No entries are
    fixed where a certificate is asked for.

    Attributes:
        group: inputs of a block, a power of two; 1 for diagonal splits only.
    """

    group: int = 4

    name: ClassVar[str] = "relaxation"
    summary: ClassVar[str] = "certified bound of the split relaxation, and its rounded mask"
    proves: ClassVar[str] = "a bound"

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        if problem.hessian.wide:
            return FactorSearch(patience=0).run(problem, control)
        greedy = greedy_mask(problem, control.device) if control.warm_start is None else control.warm_start
        control.report(problem.value(greedy), -np.inf, mask=greedy)
        if problem.budget.kind == "per_layer":
            curves = lower_curves(
                problem.W,
                problem.hessian,
                problem.G,
                refit=problem.refit,
                device=control.device,
                stopped=control.stopped,
                deadline=control.deadline,
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
        proofs = None
        if control.deadline is not None and self.group > 1 and groupable(found):
            rows = [
                WideRow(block, split, mask[block.rows[0]], low)
                for block, split, low in zip(found, splits, bounds, strict=True)
            ]
            self._raise(rows, control)
            stats |= {"split": "blocks", "blocks_of": self.group}
            stats |= {
                "block_splits": sum(row.rounds > 0 for row in rows),
                "fixed": sum(r.fixed for r in rows),
            }
            bounds = [row.bound for row in rows]
            mask = min((mask, assemble(problem, found, [row.pruned for row in rows])), key=problem.value)
            bound = float(np.sum(bounds))
            control.report(problem.value(mask), bound, mask=mask)
            if control.certify:
                proofs = [_proof(*each) for each in zip(found, splits, rows, strict=True)]
        elif control.certify:
            proofs = [root_proof(block, split) for block, split in zip(found, splits, strict=True)]
        if not problem.pools.coupled:
            stats["rows"] = [{"bound": float(b)} for b in bounds]
        return Outcome(mask, bound, stats=stats, certificate=proofs)

    def _raise(self, rows: list[WideRow], control: Control) -> None:
        """Lift rows' bounds, the widest gaps first, round by round while time lasts."""
        sizes = (self.group, 2 * self.group) if control.certify else (self.group, self.group, 2 * self.group)
        for size in sizes:

            def lift(row: WideRow, size: int = size) -> None:
                row.lift(size, control.stopped, fixing=not control.certify)
                row.polish(control.stopped)

            side_by_side(lift, sorted(rows, key=lambda row: row.bound - row.value))
            control.report(sum(row.value for row in rows), sum(row.bound for row in rows))


def _proof(block: Block, split: Split, row: WideRow) -> Proof:
    root = root_proof(block, split)
    if row.split is None or not any(len(family.D[0]) > 1 for family in row.split.families):
        return root
    return max(group_proof(block, row.split), root, key=lambda proof: proof.bound)


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
