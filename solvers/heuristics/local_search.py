"""Best 1-swaps on the tableau, all rows at once, until none gains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.control import Control
from solvers.heuristics.factor_search import FactorSearch
from solvers.heuristics.greedy import opening
from solvers.heuristics.rows.search import Effort, compile_limits, limits_of, row_data, state, uncompiled
from solvers.heuristics.rows.shares import Shares
from solvers.heuristics.rows.swaps import descend
from solvers.heuristics.rows.tableau import refresh
from solvers.heuristics.tensor.moves import best_coupled_swap, best_swaps, best_transfer, make_tableau
from solvers.heuristics.tensor.tableau import JointTableau, Tableau
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.parallel import side_by_side
from solvers.runtime.rehearsal import rehearse
from solvers.runtime.tensors import torch
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
        refresh_every: moves between two fresh factorisations of the tableau.
        memory: bytes that greedy's copies of curvatures, or the tableaux of one batch of rows, may take.
    """

    refresh_every: int = 50
    memory: int = 2 << 30

    name: ClassVar[str] = "local-search"
    summary: ClassVar[str] = "greedy, then best 1-swaps until none gains"

    def prepare(self) -> None:
        """See `Solver.prepare`."""
        rehearse(LocalSearch())
        compile_limits()

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        if problem.hessian.implicit:
            return FactorSearch().run(problem, control)
        mask = opening(problem, control, self.memory)
        control.report(problem.value(mask), -np.inf, mask=mask)
        mask, moves, drift = self.improve(problem, mask, control.stopped, control.device)
        control.report(problem.value(mask), -np.inf, moves, mask)
        return Outcome(
            mask, reason=control.stopped() or Status.FEASIBLE, stats={"moves": moves, "drift": drift}
        )

    def improve(
        self,
        problem: SubsetProblem,
        mask: Mask,
        stopped: Callable[[], Status | None] = lambda: None,
        device: str = "cpu",
    ) -> tuple[Mask, int, float]:
        """A mask that no swap improves, the number of moves, and the largest drift of a cost.

        Args:
            problem: a reduced problem.
            mask: where to start.
            stopped: polled between moves; a true answer ends the search early.
            device: torch device.
        """
        mask = mask.copy()
        if device == "cpu" and not uncompiled(problem):
            shared = problem.budget.kind == "per_layer"
            return (self._sharing if shared else self._row_by_row)(problem, mask, stopped)
        moves, drift = 0, 0.0
        together = problem.pools.coupled or problem.budget.kind == "per_layer"
        size = problem.m if together else max(1, self.memory // (8 * 6 * problem.n**2))
        for start in range(0, problem.m, size):
            rows = slice(start, start + size)
            tableau = make_tableau(problem, mask, rows=rows, device=device)
            step = self._stepper(problem, tableau, rows)
            while not stopped() and step():
                moves += 1
                if moves % self.refresh_every == 0 and isinstance(tableau, JointTableau):
                    drift = max(drift, float(tableau.drift().max()))
            mask[rows] = tableau.pruned.cpu().numpy()
        return mask, moves, drift

    def _row_by_row(
        self, problem: SubsetProblem, mask: Mask, stopped: Callable[[], Status | None]
    ) -> tuple[Mask, int, float]:
        """Independent rows of decisions on the CPU, a thread a row: the compiled search of `rows`."""
        x, known = problem.pools.decisions(mask), limits_of(problem)
        every = self.refresh_every if problem.refit else self.refresh_every * SELECTIONS

        def search(r: int) -> tuple[int, float]:
            if stopped():
                return 0, 0.0
            row = state(row_data(problem, r, known), x[r])
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

    def _stepper(self, problem: SubsetProblem, tableau: Tableau, rows: slice) -> Callable[[], bool]:
        if problem.pools.coupled:
            return lambda: _step_columns(tableau)
        labels = torch.as_tensor(problem.pools.labels[rows], device=tableau.cost.device)
        if problem.budget.kind == "per_layer":
            return lambda: _step_rows(tableau, labels) or _step_between(tableau)
        return lambda: _step_rows(tableau, labels)


def _step_rows(tableau: Tableau, labels: torch.Tensor) -> bool:
    change, come, go = best_swaps(tableau, labels)
    rows = torch.nonzero(change < -GAIN * tableau.cost.abs())[:, 0]
    if not len(rows):
        return False
    tableau.flip(rows, come[rows])
    tableau.flip(rows, go[rows])
    return True


def _step_between(tableau: Tableau) -> bool:
    change, (a, i), (b, j) = best_transfer(tableau)
    if not change < -GAIN * float(tableau.cost.sum().abs()):
        return False
    device = tableau.cost.device
    tableau.flip(torch.tensor([a, b], device=device), torch.tensor([i, j], device=device))
    return True


def _step_columns(tableau: Tableau) -> bool:
    change, i, j = best_coupled_swap(tableau)
    if not change < -GAIN * float(tableau.cost.sum().abs()):
        return False
    rows = torch.arange(len(tableau.cost), device=tableau.cost.device)
    tableau.flip(rows, torch.full_like(rows, i))
    tableau.flip(rows, torch.full_like(rows, j))
    return True
