"""Tabu search with restarts and path relinking, a thread a row."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar

import numpy as np

from solvers.control import Control
from solvers.hessian import Array
from solvers.heuristics.greedy import fits, greedy_mask, opening
from solvers.heuristics.rows.search import Effort, RowSearch, compile_limits, limits_of, row_data, state
from solvers.heuristics.rows.shares import Shares
from solvers.heuristics.rows.stacked import stacked
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.parallel import side_by_side
from solvers.runtime.rehearsal import rehearse
from solvers.solution import Status
from solvers.solver import Outcome, Solver

ROUNDS = 40
"""Walks in every row where neither they nor the time are limited."""


@dataclass(frozen=True)
class Tabu(Solver):
    """From greedy (or a warm start): every row by itself, and counts moved between rows that share a pool.

    With a time limit it goes on until then. Answers depend on the seed, not on the number of threads.

    Attributes:
        rounds: walks in every row at most; None for `ROUNDS` where there is no time limit.
        swaps: in a row, after which no walk is begun without a time limit; each counts as much as the share
            of its inputs that the row keeps, which is what it takes. By default a joint row of 784 inputs
            takes about 2 seconds at most, and one of 1536 about 10.
        share: part of a time limit that may be used.
        effort: of one walk.
        reach: of a shared pool, counts that are looked at on either side of a row's own.
    """

    rounds: int | None = None
    swaps: float = 1800.0
    share: float = 1.0
    effort: Effort = field(default_factory=Effort)
    reach: int = 4

    name: ClassVar[str] = "tabu"
    summary: ClassVar[str] = "greedy, then tabu search with restarts and path relinking"

    def prepare(self, like: SubsetProblem | None = None) -> None:
        """See `Solver.prepare`."""
        rehearse(Tabu(rounds=1), like)
        compile_limits()

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        if stacked(problem):
            return "joint columns with a hessian a row have no single state to walk from; take local-search"
        return None

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        start = opening(problem, control)
        if control.warm_start is not None and fits(problem, control):
            start = min((start, greedy_mask(problem)), key=problem.value)
        best, lowest = start, problem.value(start)
        control.report(lowest, -np.inf, mask=start)
        x = problem.pools.decisions(start)
        rounds, swaps, until = self._limits(control)
        shares = None
        if problem.budget.kind == "per_layer":
            shares = Shares(problem, x, self.reach, control.seed, self.effort)
            shares.rebalance(control.stopped)
        known = limits_of(problem)
        rows = [] if shares else [self._search(problem, r, x, control.seed, known) for r in range(len(x))]

        def stopped() -> bool:
            return bool(control.stopped()) or time.perf_counter() >= until

        def walk(search: RowSearch) -> None:
            if not stopped():
                search.round()

        for done in count():
            searches = shares.searches if shares else rows
            found = np.stack([search.mask for search in searches])
            if (found != x).any():
                x = found
                mask = problem.pools.expand(x, problem.m)
                if (value := problem.value(mask)) < lowest:
                    best, lowest = mask, value
                    control.report(lowest, -np.inf, done, best)
            if shares:
                searches = [*searches, *shares.beside(done)]
            live = [search for search in searches if not search.exhausted and search.spent < swaps]
            if not live or stopped() or done == rounds:
                break
            side_by_side(walk, live)
            if shares:
                shares.rebalance(control.stopped)
        stats = {"rounds": done, "swaps": sum(search.swaps for search in searches)}
        return Outcome(best, reason=control.stopped() or Status.FEASIBLE, stats=stats)

    def _limits(self, control: Control) -> tuple[float, float, float]:
        """Walks and swaps in a row, and the time at which to stop."""
        left = control.remaining
        if left is None:
            return ROUNDS if self.rounds is None else self.rounds, self.swaps, np.inf
        rounds = np.inf if self.rounds is None else self.rounds
        return rounds, np.inf, time.perf_counter() + self.share * left

    def _search(self, problem: SubsetProblem, r: int, x: Mask, seed: int, known: Array | None) -> RowSearch:
        data = row_data(problem, r, known)
        return RowSearch(data, x[r], float(state(data, x[r].copy()).cost[0]), [seed, r], self.effort)
