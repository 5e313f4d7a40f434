"""OSSCAR-style structured pruning: columns go in rounds, and are swapped after each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.budget import UNITS
from solvers.control import Control
from solvers.heuristics.units import Units, unsuitable
from solvers.problem import SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome, Solver

GAIN = 1e-9
"""A swap counts when it lowers the cost by more than this, relative to it."""
STEPS = 50
"""Swaps at most between two rounds; after the last one there is no limit."""


@dataclass(frozen=True)
class OSSCAR(Solver):
    """Meng et al. 2024 (arXiv 2403.12983): combinatorial local search over groups of columns.

    Columns, or units of neighbouring ones, go in rounds of about as many each. In a round the cheapest goes
    first, one after the other; then the best swap of a kept unit for one of the `candidates` pruned ones that
    would win most by coming back is made, until none gains. All costs are those of the joint problem, in
    closed form from an inverse that every move changes by a low rank (`solvers.heuristics.units`). Only the
    paper's abstract was at hand: the schedule of rounds, and how many swaps follow each, are this project's.

    Attributes:
        rounds: in which the units go.
        candidates: pruned units that are tried in a swap; None for all of them.
    """

    rounds: int = 8
    candidates: int | None = None

    name: ClassVar[str] = "osscar"
    summary: ClassVar[str] = "columns in rounds, each followed by swaps (after Meng et al. 2024)"
    variants: ClassVar[tuple[str, ...]] = ("joint",)
    budgets: ClassVar[tuple[str, ...]] = ("columns", UNITS)

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        return unsuitable(problem)

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`; a warm start is improved by swaps alone."""
        pools, warm = problem.pools, control.warm_start
        count = int(pools.prune[0]) // pools.width
        start = np.zeros(problem.n, dtype=bool) if warm is None else warm[0]
        units, swaps = Units(problem, start), 0
        candidates = len(units.gone) if self.candidates is None else self.candidates
        for goal in np.linspace(0, count, self.rounds + 1).round().astype(int)[1:].tolist():
            if goal <= units.gone.sum() < count:
                continue
            units.prune_cheapest(goal - int(units.gone.sum()), control.stopped)
            last = int(units.gone.sum()) == count
            swaps += units.descend(candidates, GAIN, control.stopped, problem.n**2 if last else STEPS)
            if last:
                break
        mask = pools.expand(units.pruned[None], problem.m)
        control.report(problem.value(mask), -np.inf, swaps, mask)
        stats = {"swaps": swaps, "pivots": units.pivots}
        return Outcome(mask, reason=control.stopped() or Status.FEASIBLE, stats=stats)
