"""What every mixed-integer solver of the plain or strengthened models does the same way."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from solvers.allocation import allocate
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.split import split_blocks
from solvers.control import Control
from solvers.foreign.in_turn import InTurn, in_turn, prepare_start
from solvers.foreign.models import JointModel, SelectionModel, joint_model, selection_model
from solvers.form.blocks import blocks
from solvers.form.parts import Part
from solvers.greedy.curves import row_curves
from solvers.hessian import Array
from solvers.problem import SubsetProblem
from solvers.solver import Outcome, Solver

SHARE = 0.8
"""Share of the gap asked for that is asked of a foreign solver, whose values carry its tolerances."""


class MixedInteger(Solver):
    """A foreign solver on the model of every independent part in turn."""

    strengthened: ClassVar[bool]
    """Whether models have the best split: the perspective (joint) or convexification (selection)."""
    informed: bool = True
    """Whether it is given the incumbent of our local search, and the ranges of weights that follow."""
    proves: ClassVar[str] = "optimality"

    @abstractmethod
    def solve_model(self, model: JointModel | SelectionModel, part: Part, turns: InTurn, gap: float) -> bool:
        """Solve a part's model within `part.seconds`, sending news through `turns.watch`.

        Args:
            model: its numbers.
            part: what it is the model of.
            turns: takes the news.
            gap: relative gap to stop at.

        Returns:
            Whether the time cut it short.
        """

    def prepare(self) -> None:
        """See `Solver.prepare`."""
        prepare_start()

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        split = root(problem, control.device) if self.strengthened else None
        turns = in_turn(problem, control, None if split is None else split.floors)
        widest = 0.0

        def solve_part(part: Part) -> bool:
            nonlocal widest
            d = None if split is None else split.d[part.rows]
            known = part if self.informed else replace(part, value=everything(part.problem))
            model = joint_model(known, d) if part.problem.refit else selection_model(part, d)
            widest = max(widest, model.widening)
            spent = model.widening / max(abs(part.value), np.finfo(float).tiny)
            return self.solve_model(model, part, turns, SHARE * max(0.0, part.gap - spent))

        reason = turns.solve(solve_part)
        return turns.outcome(reason, {"strengthened": self.strengthened, "bound_widening": widest})


def everything(problem: SubsetProblem) -> float:
    """`1/2 sum_r w_r'H_r w_r`, what pruning everything costs: no joint optimum costs more."""
    H = [problem.hessian.dense(r) for r in range(problem.m)]
    return 0.5 * sum(float(w @ A @ w) for w, A in zip(problem.W, H, strict=True))


@dataclass(frozen=True)
class Root:
    """The best split of a problem and the bounds that it proves.

    Attributes:
        d: `[m, n]` split of the Hessians (joint), or `[b, n]` of the rows' `A` (selection).
        floors: a valid bound for every independent part, or None where the rows share one pool.
    """

    d: Array
    floors: Sequence[float] | None


def root(problem: SubsetProblem, device: str = "cpu") -> Root:
    """Split a reduced problem for its strengthened model, see `solvers.bounds.split`.

    Rows of a `per_layer` budget are split at the counts of a greedy allocation.
    """
    counts = None
    if problem.budget.kind == "per_layer":
        curves = row_curves(problem.W, problem.hessian, refit=problem.refit)
        counts = allocate(list(curves.values), int(problem.pools.prune[0]))
    found = blocks(problem, counts)
    splits = split_blocks(found, device=device)
    d = np.concatenate([split.d for split in splits])
    if counts is not None:
        return Root(d, None)
    floors = [
        lower_bound(block, split.d, relaxed_point(block, split.d, split.z))
        for block, split in zip(found, splits, strict=True)
    ]
    return Root(np.broadcast_to(d, problem.W.shape) if problem.refit else d, floors)
