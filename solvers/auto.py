"""The default solver: a proof where it can be had, a strong mask and a certified gap elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from solvers.budget import GROUPS, KINDS, UNITS
from solvers.control import Control
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.exact.brute_force import BruteForce
from solvers.exact.enumeration import count
from solvers.heuristics.factor_search import FactorSearch
from solvers.heuristics.local_search import LocalSearch
from solvers.heuristics.portfolio import Portfolio
from solvers.heuristics.published.osscar import OSSCAR
from solvers.heuristics.units import unfit_for_units
from solvers.problem import SubsetProblem
from solvers.relaxations.split import Relaxation
from solvers.runtime.parallel import workers
from solvers.solution import Status
from solvers.solver import Outcome, Solver

ROOT = 0.6
"""Seconds that the first node of a row of 144 inputs takes, about."""
FEW_UNITS = 1_000
"""Masks of columns in units of several, which no tree does, up to which every one is tried."""


@dataclass(frozen=True)
class Auto(Solver):
    """Branch and bound up to `exact_inputs` inputs, else the portfolio's mask and the relaxation's bound.

    With a time limit, joint rows of up to `timed_inputs` go to the branch and bound, too, if every row can
    have at least a bound at the root in half of it; those of N:M budgets where no certificate is asked for.

    Columns that go in units of several get the better mask of OSSCAR and local search, and that
    bound; or every mask is tried, if there are few.

    Attributes:
        exact_inputs: inputs up to which a proof is tried, and a checkpoint can be kept.
        timed_inputs: inputs up to which it is tried within a time limit.
        patience: seconds that the proof may take where there is neither a time limit nor a checkpoint; None
            for no end. Past it the status is `patience`.
        search: the solver that tries to prove.
        share: part of a time limit that the mask of a wide problem may take before its bound.
        memory: bytes that the search for that mask may take; see `Portfolio`.
    """

    exact_inputs: int = 128
    timed_inputs: int = 256
    patience: float | None = None
    search: BranchAndBound = field(default_factory=BranchAndBound)
    share: float = 0.3
    memory: int = Portfolio.memory

    name: ClassVar[str] = "auto"
    summary: ClassVar[str] = "a proof on small rows, strong search with a certified bound on large ones"
    proves: ClassVar[str] = "optimality"
    budgets: ClassVar[tuple[str, ...]] = (*KINDS, GROUPS, UNITS)
    resumable: ClassVar[bool] = True

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        return unfit_for_units(problem)

    def prepare(self, like: SubsetProblem | None = None) -> None:
        """See `Solver.prepare`."""
        self.search.prepare(like)
        if like is None or like.n > self.exact_inputs or like.pools.width > 1 or like.hessian.implicit:
            Portfolio().prepare(like)
            Relaxation().prepare(like)

    def settings(self) -> str:
        """See `Solver.settings`."""
        return self.search.settings()

    def resumes(self, problem: SubsetProblem) -> bool:
        """See `Solver.resumes`."""
        narrow = len(problem.prunable) <= self.exact_inputs
        return narrow and not problem.hessian.implicit and problem.pools.width == 1

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        if problem.hessian.implicit:
            outcome = FactorSearch().run(problem, control)
            return replace(outcome, stats={**outcome.stats, "ran": ["factor-search"]})
        if problem.pools.width > 1:
            return self._units(problem, control)
        if problem.n <= self.exact_inputs or self._in_time(problem, control):
            outcome = self._prove(problem, control)
            return replace(outcome, stats={**outcome.stats, "ran": ["branch-and-bound"]})
        found = Portfolio(share=self.share, memory=self.memory).run(problem, control)
        return self._bounded(found, found.stats["ran"], problem, control)

    def _in_time(self, problem: SubsetProblem, control: Control) -> bool:
        """Whether rows wider than `exact_inputs` can be proven, or bounded well, in the time left."""
        kinds = ("per_row",) if control.certify else ("per_row", "n_of_m")
        if control.remaining is None or problem.n > self.timed_inputs or problem.budget.kind not in kinds:
            return False
        roots = problem.m * ROOT * (problem.n / 144) ** 2.5 / workers()
        return problem.refit and self.search.grouped <= problem.n and roots <= 0.5 * control.remaining

    def _units(self, problem: SubsetProblem, control: Control) -> Outcome:
        """Columns in units: swaps; then every mask, if there are few, or the relaxation's bound."""
        swapped = [solver.run(problem, control) for solver in (OSSCAR(), LocalSearch())]
        found, ran = min(swapped, key=lambda each: problem.value(each.mask)), ["osscar", "local-search"]
        if count(problem, 0) <= FEW_UNITS:
            tried = BruteForce().run(problem, control)
            if tried.reason is Status.OPTIMAL:
                return replace(tried, stats={**tried.stats, "ran": [*ran, "brute-force"]})
        return self._bounded(found, ran, problem, control)

    def _bounded(self, found: Outcome, ran: list[str], problem: SubsetProblem, control: Control) -> Outcome:
        """A mask with the relaxation's bound."""
        if reason := control.stopped():
            return replace(found, reason=reason, stats={**found.stats, "ran": ran})
        quiet = control.quiet(warm_start=found.mask)
        quiet.certify = control.certify
        relaxed = Relaxation().run(problem, quiet)
        mask = min((found.mask, relaxed.mask), key=problem.value)
        control.report(problem.value(mask), relaxed.bound, mask=mask)
        stats = {**found.stats, **relaxed.stats, "ran": [*ran, "relaxation"]}
        reason = control.stopped() or relaxed.reason
        return replace(relaxed, mask=mask, reason=reason, stats=stats)

    def _prove(self, problem: SubsetProblem, control: Control) -> Outcome:
        if self.patience is None or control.deadline is not None or control.checkpoint is not None:
            return self.search.run(problem, control)
        outcome = self.search.run(problem, control.within(self.patience))
        if outcome.reason is Status.TIME_LIMIT:
            return replace(outcome, reason=Status.PATIENCE)
        return outcome
