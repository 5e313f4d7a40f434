"""A portfolio of primal heuristics for wide layers: annealed ADMM, then whatever gains most per second."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from solvers.budget import GROUPS
from solvers.control import Control
from solvers.hessian.base import FORM_BYTES
from solvers.hessian.supports import seconds
from solvers.heuristics.layer.rounds import Rounds
from solvers.heuristics.layer.scaled import Layer
from solvers.heuristics.local_search import LocalSearch
from solvers.heuristics.tabu import Tabu
from solvers.problem import Mask, SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome, Solver

NARROW = 128
"""Inputs up to which swaps in every row find a better start, too."""
SHARED_BYTES, KEPT_BYTES, ROW_BYTES = 24, 5, 112
"""Memory of the search: by entry of the curvature, of the weights, of the rows that it works on at once."""


@dataclass(frozen=True)
class Portfolio(Solver):
    """ADMM with an annealed penalty from the dense weights, then rounds of one of two heuristics.

    Each round is whichever gained more of the cost per second when it last ran:

    - *reheat*: the ADMM again, from the best mask; each row keeps the better of its two masks;
    - *swaps*: local search by the best swap, in rows whose mask has changed since they last had it.

    Without a time limit it ends when no swap gains and `patience` reheats in a row gained next to nothing.
    A time limit holds for the final refit, too: that is timed on a few rows, and its time held in reserve.
    Rows of up to `NARROW` inputs go to the tabu search instead. Wider problems that are no `Layer` (a
    selection, or a curvature a row), and columns that few enough rows share, go to the local search.

    Attributes:
        stages: of the first annealing.
        patience: reheats without gain that end the search.
        share: part of the time left that may be used.
        memory: bytes that the search may take, beside the problem and the refit of its answer. Rows with
            budgets of their own are searched in several parts if need be; rows that share one can't be. If
            a row's state for swaps does not fit in what is left, there are no swaps.
    """

    stages: int = 60
    patience: int = 2
    share: float = 1.0
    memory: int = 2 << 30

    name: ClassVar[str] = "portfolio"
    summary: ClassVar[str] = "annealed ADMM, then reheating and best 1-swaps by what they gain"

    def prepare(self, like: SubsetProblem | None = None) -> None:
        """See `Solver.prepare`."""
        for solver in (Tabu(), LocalSearch()):
            solver.prepare(like)

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        if not self._annealable(problem):
            solver = Tabu() if problem.n <= NARROW and Tabu().refuses(problem) is None else LocalSearch()
            found = solver.run(problem, control)
            return Outcome(found.mask, reason=found.reason, stats={**found.stats, "ran": [solver.name]})
        end = math.inf
        if control.remaining is not None:
            end = time.perf_counter() + self.share * (control.remaining - _refitting(problem))
        mask, stats = self._search(problem, control, end)
        control.report(problem.value(mask), -np.inf, mask=mask)
        return Outcome(mask, reason=control.stopped() or Status.FEASIBLE, stats=stats)

    def _search(self, problem: SubsetProblem, control: Control, end: float) -> tuple[Mask, dict[str, Any]]:
        """The best mask by `end`, and what was done, part by part of the rows."""
        layer = Layer(problem, control.device, leveled=True)
        mask = np.zeros(problem.W.shape, dtype=bool)
        ran: dict[str, dict[str, float]] = {}
        steps = 0
        for rows in self._parts(problem):
            now = time.perf_counter()
            until = now + (end - now) * (rows.stop - rows.start) / (problem.m - rows.start)
            spare = self.memory - _fixed(problem) - ROW_BYTES * (rows.stop - rows.start) * problem.n
            search = Rounds(problem, control, layer, rows, until, spare)
            mask[rows] = search.run(self.stages, self.patience)
            steps += search.steps
            search.add_to(ran)
        return mask, {"steps": steps, "ran": ["annealing", *ran], "rounds": ran}

    def _parts(self, problem: SubsetProblem) -> Iterator[slice]:
        """Rows that are searched together: all of them where they share a budget."""
        m, n = problem.W.shape
        count = m
        if problem.budget.kind in ("per_row", "n_of_m"):
            count = min(m, max(1, (self.memory - _fixed(problem)) // (ROW_BYTES * n)))
        count = -(-m // -(-m // count))
        for start in range(0, m, count):
            yield slice(start, min(start + count, m))

    def _annealable(self, problem: SubsetProblem) -> bool:
        """Whether a problem is a wide `Layer`; columns of few enough rows do better by swaps."""
        small = problem.pools.coupled and 48 * problem.m * problem.n**2 <= self.memory
        formed = 8 * problem.n**2 <= FORM_BYTES
        wide = problem.n > NARROW and problem.hessian.shared
        return problem.refit and wide and formed and not small and problem.budget.kind != GROUPS


def _fixed(problem: SubsetProblem) -> int:
    """Bytes that a search takes however few rows it works on at once."""
    return int(SHARED_BYTES * problem.n**2 + KEPT_BYTES * problem.m * problem.n)


def _refitting(problem: SubsetProblem) -> float:
    """Seconds that the value of a mask takes, about."""
    keep = float(problem.pools.keep.sum()) / problem.pools.labels.size
    return seconds(problem.hessian, problem.m, round(keep * problem.n))
