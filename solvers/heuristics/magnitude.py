"""Prune the smallest weights of every pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.control import Control
from solvers.problem import SubsetProblem
from solvers.solver import Outcome, Solver


@dataclass(frozen=True)
class Magnitude(Solver):
    """Least `|w|` first; columns by their Euclidean norm. The curvature is not looked at."""

    name: ClassVar[str] = "magnitude"
    summary: ClassVar[str] = "smallest weights first"

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        scores = problem.W**2
        if problem.pools.coupled:
            scores = scores.sum(axis=0, keepdims=True)
        mask = problem.pools.expand(problem.pools.smallest(scores), problem.m)
        control.report(problem.value(mask), -np.inf, mask=mask)
        return Outcome(mask)
