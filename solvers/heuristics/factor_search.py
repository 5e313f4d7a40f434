"""Wide rows on a factor that is never formed: relaxed, rounded, and searched window by window."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from solvers.bounds.factor.ascent import Relaxed, ascend
from solvers.bounds.factor.image import Coordinates, Factored, Image, coordinates, images
from solvers.budget import Budget
from solvers.control import Control
from solvers.hessian import Array, BlockDiagonalHessian, FactorHessian
from solvers.heuristics.factor.joint import JointRow
from solvers.heuristics.factor.row import FactorRow
from solvers.heuristics.factor.selection import SelectionRow
from solvers.heuristics.factor.windows import Items, margins, near
from solvers.heuristics.rows.search import Effort
from solvers.problem import Mask, SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome, Solver

GAIN = 1e-4
"""Relative gain below which a window counts as one without."""


@dataclass(frozen=True)
class FactorSearch(Solver):
    """The relaxation's bound, its rounded mask, and searches of windows of columns from there.

    Windows are those of the entries that change sides most cheaply, for selections also of the best pairs;
    then random ones near the relaxation's threshold, until `patience` of them in a row gain nothing; with a
    time limit, for as long as that lasts or the gap asked for is not met. Memory: the factor, its
    coordinates (`[n, r]`, r up to 1024), and for joint problems some `[N, N]`.

    Attributes:
        window: entries of a window.
        effort: of one walk in it.
        rounds: walks in a random window.
        patience: random windows without a gain that end the search; 0 for none at all.
        tolerance: relative, of the relaxation.
        opening: windows that are searched before the relaxation, which takes its scale from what is found.
    """

    window: int = 512
    effort: Effort = field(default_factory=Effort)
    rounds: int = 8
    patience: int = 4
    tolerance: float = 1e-3
    opening: int = 4

    name: ClassVar[str] = "factor-search"
    summary: ClassVar[str] = "bound, rounding and window search on factors that are never formed"
    proves: ClassVar[str] = "a bound"

    def prepare(self) -> None:
        """See `Solver.prepare`."""
        H = FactorHessian(np.eye(2, 4), 1.0)
        for refit in (True, False):
            self.run(SubsetProblem(np.ones((1, 4)), H, Budget.per_row(2), refit=refit), Control())

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        hessian = problem.hessian
        if not isinstance(hessian, Factored):
            return "its curvature is no factor; take local-search"
        if isinstance(hessian, BlockDiagonalHessian) and not hessian.factored:
            return "a block of its curvature is no factor; take local-search"
        if problem.refit and not (hessian.ridge > 0).all():
            return "its curvature has no damping; give one > 0"
        if problem.m > 1 and problem.budget.kind in ("per_layer", "columns"):
            return f"{problem.m} rows share its budget; lay the layer out as one row"
        return None

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        start = control.warm_start
        if start is None:
            saliency = problem.W**2 * problem.hessian.diagonal()
            start = problem.pools.expand(problem.pools.smallest(saliency), problem.m)
        control.report(problem.value(start), -np.inf, mask=start)
        mask, bounds = start.copy(), []
        stats: dict[str, Any] = {"ascent_steps": 0, "windows": 0}
        for r, image in enumerate(images(problem)):
            search = _RowSearch(self, image, start[r], [control.seed, r], control)
            bounds.append(search.relaxed.bound)
            stats["ascent_steps"] += search.relaxed.steps
            reached = float(np.sum(bounds)) if r == problem.m - 1 else -np.inf

            def tell(pruned: Mask, r: int = r, reached: float = reached, search: Any = search) -> None:
                mask[r] = pruned
                control.report(problem.value(mask), reached, search.windows, mask.copy())

            tell(search.row.pruned)
            search.round_off()
            tell(search.row.pruned)
            left = control.remaining
            search.wander(None if left is None else left / (problem.m - r))
            tell(search.row.pruned)
            stats["windows"] += search.windows
        if problem.m > 1:
            stats["rows"] = [{"bound": float(bound)} for bound in bounds]
        return Outcome(mask, float(np.sum(bounds)), control.stopped() or Status.FEASIBLE, stats)


class _RowSearch:
    """One row: opened and relaxed when made, then searched."""

    def __init__(
        self, solver: FactorSearch, image: Image, start: Mask, seed: list[int], control: Control
    ) -> None:
        self.solver, self.seed, self.control, self.windows = solver, seed, control, 0
        self.space: Coordinates = coordinates(image)
        self.row: FactorRow = (JointRow if image.refit else SelectionRow)(image, start)
        for _ in range(solver.opening):
            self._try(self.row.cheapest(solver.window), 1)
        self.relaxed: Relaxed = ascend(
            image, self.space, self.row.value, tolerance=solver.tolerance, stopped=control.stopped
        )
        self._taken = image.largest(self.relaxed.scores)
        self.margin: Array = margins(self.relaxed.scores, self._taken, image.labels)

    def round_off(self) -> None:
        """Go on from the relaxation's mask, unless what comes of it is worse than the one at hand."""
        before, value = self.row.pruned.copy(), self.row.value
        self.row.set(~self._taken if self.row.image.refit else self._taken)
        self.descend()
        if self.row.value > value:
            self.row.set(before)
            self.descend()

    def descend(self) -> None:
        """Windows of the cheapest entries, and of the best pairs, until neither gains."""
        idle, pairing = 0, False
        while idle < 2 and not self.control.stopped():
            if pairing and isinstance(self.row, SelectionRow) and not self.row.image.labels.any():
                window = self.row.pairs(self.space, self.margin, self.solver.window)
            else:
                window = self.row.cheapest(self.solver.window)
            idle = 0 if self._try(window, 1) else idle + 1
            pairing = not pairing

    def wander(self, seconds: float | None) -> None:
        """Random windows near the thresholds, and a descent after every gain.

        Args:
            seconds: to spend; None to go by the solver's `patience`.
        """
        rng, idle, row = np.random.default_rng(self.seed), 0, self.row
        end = np.inf if seconds is None else time.perf_counter() + seconds
        while idle < self.solver.patience and not self.control.stopped() and time.perf_counter() < end:
            if row.value - self.relaxed.bound <= self.control.gap * abs(row.value):
                return
            window = near(self.margin, row.pruned, row.image.labels, self.solver.window, rng)
            if self._try(window, self.solver.rounds):
                self.descend()
                idle = 0
            elif seconds is None:
                idle += 1

    def _try(self, window: Items, rounds: int) -> bool:
        """Search a window; whether it gained what counts."""
        self.windows += 1
        value = self.row.value
        self.row.exchange(window, [*self.seed, self.windows], self.solver.effort, rounds)
        return value - self.row.value > GAIN * abs(value)
