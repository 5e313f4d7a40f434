"""One look at every weight: the least of a score go. The floor for all searches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.control import Control
from solvers.greedy.elimination import invert
from solvers.hessian import Array
from solvers.heuristics.published.chita import largest
from solvers.problem import SubsetProblem
from solvers.solver import Outcome, Solver


@dataclass(frozen=True)
class Magnitude(Solver):
    """Least `|w|` first; columns by their Euclidean norm. The curvature is not looked at."""

    name: ClassVar[str] = "magnitude"
    summary: ClassVar[str] = "smallest weights first"

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        return _least(problem, problem.W**2, control)


@dataclass(frozen=True)
class Saliency(Solver):
    """The least cost alone: `w_j^2 / (2 [H^-1]_jj)` if survivors move, else `1/2 H_jj w_j^2 - g_j w_j`.

    The first is OBS's saliency (Hassibi & Stork 1992) and WoodFisher's, the second OBD's. Columns go by the
    sum over their rows.
    """

    name: ClassVar[str] = "saliency"
    summary: ClassVar[str] = "least cost of going alone, all at once (WoodFisher's pick)"

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        if problem.refit:
            H = problem.hessian
            inverse = np.stack([np.diagonal(invert(H.dense(r))) for r in range(H.rows or 1)])
            scores = problem.W**2 / inverse
        else:
            scores = 0.5 * problem.hessian.diagonal() * problem.W**2
            scores -= 0.0 if problem.G is None else problem.G * problem.W
        return _least(problem, scores, control)


@dataclass(frozen=True)
class Wanda(Solver):
    """Least `|w_j| sqrt(H_jj)` first: Wanda's score (Sun et al. 2024) on a layer Gram."""

    name: ClassVar[str] = "wanda"
    summary: ClassVar[str] = "least |w| sqrt(H_jj) first (Sun et al. 2024)"

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        return _least(problem, problem.hessian.diagonal() * problem.W**2, control)


def _least(problem: SubsetProblem, scores: Array, control: Control) -> Outcome:
    mask = largest(problem.pools, scores)
    control.report(problem.value(mask), -np.inf, mask=mask)
    return Outcome(mask)
