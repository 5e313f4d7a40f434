"""Local search: the best swap of a pruned entry for a kept one, again until none lowers the cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.budget import GROUPS, KINDS, UNITS
from solvers.control import Control
from solvers.heuristics.factor_search import FactorSearch
from solvers.heuristics.greedy import opening
from solvers.heuristics.rows.search import Effort, compile_limits, limits_of, row_data, state
from solvers.heuristics.rows.shares import Shares
from solvers.heuristics.rows.stacked import Columns, stacked
from solvers.heuristics.rows.swaps import descend
from solvers.heuristics.rows.tableau import Row, refresh
from solvers.heuristics.units import Units, unfit_for_units
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.parallel import side_by_side
from solvers.runtime.rehearsal import rehearse
from solvers.solution import Status
from solvers.solver import Outcome, Solver

SELECTIONS = 20
"""Times as many moves of a selection, whose errors only add up, as of joint rows, where they multiply."""
GAIN = 1e-9
"""A move counts when it lowers the cost by more than this, relative to the row's cost."""


@dataclass(frozen=True)
class LocalSearch(Solver):
    """From greedy (or a warm start) by best-improvement swaps to a mask no swap improves.

    Wide factors, which are never formed, are searched by `solvers.heuristics.factor_search`.

    Attributes:
        refresh_every: moves between two fresh factorisations of a row's state.
        memory: bytes that greedy's copies of curvatures may take.
    """

    refresh_every: int = 50
    memory: int = 2 << 30

    name: ClassVar[str] = "local-search"
    summary: ClassVar[str] = "greedy, then best 1-swaps until none gains"
    budgets: ClassVar[tuple[str, ...]] = (*KINDS, GROUPS, UNITS)

    def prepare(self, like: SubsetProblem | None = None) -> None:
        """See `Solver.prepare`."""
        rehearse(LocalSearch(), like)
        compile_limits()

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        return unfit_for_units(problem)

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        if problem.hessian.implicit:
            return FactorSearch().run(problem, control)
        mask = opening(problem, control, self.memory)
        control.report(problem.value(mask), -np.inf, mask=mask)
        mask, moves, drift = self.improve(problem, mask, control.stopped)
        control.report(problem.value(mask), -np.inf, moves, mask)
        return Outcome(
            mask, reason=control.stopped() or Status.FEASIBLE, stats={"moves": moves, "drift": drift}
        )

    def improve(
        self,
        problem: SubsetProblem,
        mask: Mask,
        stopped: Callable[[], Status | None] = lambda: None,
    ) -> tuple[Mask, int, float]:
        """A mask that no swap improves, the number of moves, and the largest drift of a cost.

        Args:
            problem: a reduced problem.
            mask: where to start.
            stopped: polled between moves; a true answer ends the search early.
        """
        mask = mask.copy()
        if problem.pools.width > 1:
            units = Units(problem, mask[0])
            moves = units.descend(len(units.gone), GAIN, stopped, problem.n**2)
            return problem.pools.expand(units.pruned[None], problem.m), moves, 0.0
        if stacked(problem):
            return self._stacked(problem, mask, stopped)
        shared = problem.budget.kind == "per_layer"
        return (self._sharing if shared else self._row_by_row)(problem, mask, stopped)

    def _row_by_row(
        self, problem: SubsetProblem, mask: Mask, stopped: Callable[[], Status | None]
    ) -> tuple[Mask, int, float]:
        """Independent rows of decisions on the CPU, a thread a row: the compiled search of `rows`."""
        x, known = problem.pools.decisions(mask), limits_of(problem)
        every = self.refresh_every if problem.refit else self.refresh_every * SELECTIONS

        def search(r: int) -> tuple[int, float]:
            if stopped():
                return 0, 0.0
            return swap_until_none_gains(state(row_data(problem, r, known), x[r]), every, stopped)

        found = side_by_side(search, range(len(x)))
        mask = problem.pools.expand(x, problem.m)
        return mask, sum(moves for moves, _ in found), max(drift for _, drift in found)

    def _sharing(
        self, problem: SubsetProblem, mask: Mask, stopped: Callable[[], Status | None]
    ) -> tuple[Mask, int, float]:
        """Rows of one pool on the CPU: the same, and counts that move between them."""
        if stopped():
            return mask, 0, 0.0
        shares = Shares(problem, mask, 1, 0, Effort(elites=1))
        shares.rebalance(stopped)
        mask = np.stack([search.mask for search in shares.searches])
        told, true = sum(search.value for search in shares.searches), problem.value(mask)
        return mask, shares.moves, abs(told - true) / abs(true) if true else 0.0

    def _stacked(
        self, problem: SubsetProblem, mask: Mask, stopped: Callable[[], Status | None]
    ) -> tuple[Mask, int, float]:
        """Joint columns with a curvature a row: swaps of columns, whose changes the rows add up."""
        columns = Columns(problem, problem.pools.decisions(mask)[0])
        moves, drift = 0, 0.0
        while not stopped() and columns.swap(GAIN * abs(columns.cost)):
            moves += 1
            if moves % self.refresh_every == 0:
                cost = columns.cost
                columns.refresh()
                drift = max(drift, abs(columns.cost - cost) / abs(cost))
        return problem.pools.expand(columns.pruned[None], problem.m), moves, drift


def swap_until_none_gains(row: Row, every: int, stopped: Callable[[], object]) -> tuple[int, float]:
    """Make a row's best swap until none gains: how many were made, and its cost's largest relative drift.

    Args:
        row: the state, changed in place.
        every: swaps between two fresh states.
        stopped: polled before them; a true answer ends the search.
    """
    total, drift = 0, 0.0
    while not stopped():
        moves = descend(row, GAIN, every)
        total += moves
        if moves < every:
            break
        cost = row.cost[0]
        refresh(row)
        drift = max(drift, abs(row.cost[0] - cost) / abs(cost)) if cost else drift
    return total, drift
