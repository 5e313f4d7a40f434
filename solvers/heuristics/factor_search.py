"""Wide rows on a factor that is never formed: relaxed, rounded, and searched window by window."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from solvers.bounds.factor.dual_ascent import Relaxed, ascend
from solvers.bounds.factor.image import Coordinates, Factored, Image, coordinates, images
from solvers.budget import Budget
from solvers.certificate.proof import ImagePoints
from solvers.control import Control
from solvers.hessian import Array, BlockDiagonalHessian, FactorHessian
from solvers.heuristics.factor_rows import Items, SelectionRow, margins, near, open_factor_row
from solvers.heuristics.rows.search import Effort
from solvers.problem import Mask, SubsetProblem
from solvers.solution import RowBounds, Status
from solvers.solver import Outcome, Solver

WIDER = 4
"""Times the size of other windows that the wider ones of a descent have."""
RELAXING = 0.7
"""Share of a row's time by which its relaxation ends, so that some is left to search from it."""
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

    def prepare(self, like: SubsetProblem | None = None) -> None:
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
        if len(problem.movable) and not hessian.implicit:  # whose elimination leaves a dense complement
            return "with columns that only move its curvature is no factor; take local-search"
        if problem.refit and not (hessian.ridge > 0).all():
            return "its curvature has no damping; give one > 0"
        if problem.m > 1 and problem.pools.coupled:
            return f"{problem.m} rows share its columns; take swapping"
        return None

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        start = control.warm_start
        if start is None:
            saliency = problem.W**2 * problem.hessian.diagonal()
            start = problem.pools.expand(problem.pools.smallest(saliency), problem.m)
        found = images(problem)
        best = _Incumbent(problem, control, start, len(found))
        bounds, points = [], []
        stats: dict[str, Any] = {"ascent_steps": 0, "windows": 0}
        for r, image in enumerate(found):
            left = control.remaining
            share = None if left is None else left / (len(found) - r)
            search = _RowSearch(self, image, best.mask[r].copy(), [control.seed, r], control, share)
            bounds.append(search.relaxed.bound)
            points.append(search.relaxed.y)
            if r == len(found) - 1:
                best.bound = float(np.sum(bounds))
            if search.exact:
                best.take(r, search)
            search.round_off()
            best.take(r, search)
            left = control.remaining
            search.wander(None if left is None else left / (len(found) - r))
            best.take(r, search)
            stats["ascent_steps"] += search.relaxed.steps
            stats["windows"] += search.windows
        return Outcome(
            best.whole, best.bound, control.stopped() or Status.FEASIBLE, stats,
            proof=ImagePoints(points) if control.certify else None,
            rows=RowBounds(np.array(bounds)) if len(found) > 1 else None,
        )  # fmt: skip


class _Incumbent:
    """The best masks of all images so far, and what is reported of them.

    Attributes:
        mask: `[images, n]`.
        bound: of the problem.
    """

    def __init__(self, problem: SubsetProblem, control: Control, start: Mask, count: int) -> None:
        self.problem, self.control, self.bound = problem, control, -np.inf
        self.mask = start.reshape(count, -1).copy()
        self.values = self._values()
        control.report(float(self.values.sum()), -np.inf, mask=start)

    @property
    def whole(self) -> Mask:
        """`[m, n]` a copy of the mask."""
        return self.mask.reshape(self.problem.W.shape).copy()

    def take(self, r: int, search: _RowSearch) -> None:
        """A row's mask, if it is better than the one before; and a report."""
        before, value = self.mask[r].copy(), search.row.value
        self.mask[r] = search.row.pruned
        if not search.exact:
            value = float(self._values()[r])
        if value < self.values[r]:
            self.values[r] = value
        else:
            self.mask[r] = before
        self.control.report(float(self.values.sum()), self.bound, search.windows, self.whole)

    def _values(self) -> Array:
        rows = self.problem.row_values(self.whole)
        return np.asarray(rows.reshape(len(self.mask), -1).sum(axis=1))


class _RowSearch:
    """One row: opened and relaxed when made, then searched.

    Attributes:
        exact: whether the row's value is the problem's; joint rows of a large image are searched in a sketch.
    """

    def __init__(
        self,
        solver: FactorSearch,
        image: Image,
        start: Mask,
        seed: list[int],
        control: Control,
        seconds: float | None,
    ) -> None:
        end = np.inf if seconds is None else time.perf_counter() + RELAXING * seconds
        self.solver, self.seed, self.control, self.windows = solver, seed, control, 0
        self.space: Coordinates = coordinates(image)
        self.row = open_factor_row(image, self.space, start)
        self.exact = self.row.image is image
        for _ in range(solver.opening):
            self._try(self.row.cheapest(solver.window), 1)
        self.relaxed: Relaxed = ascend(
            image, self.space, self.row.value, tolerance=solver.tolerance,
            stopped=lambda: control.stopped() or time.perf_counter() > end,
        )  # fmt: skip
        self._taken = image.largest(self.relaxed.scores)
        self.margin: Array = margins(self.relaxed.scores, self._taken, image.labels)

    def round_off(self) -> None:
        """Go on from the relaxation's mask, unless what comes of it is worse than the one at hand.

        The first window is of the entries that the relaxation leaves open.
        """
        row, shares = self.row, self.relaxed.shares
        before, value = row.pruned.copy(), row.value
        row.set(~self._taken if row.image.refit else self._taken)
        split = np.flatnonzero((shares > 0.0) & (shares < 1.0))
        if len(split) > self.solver.window and not row.image.labels.any():
            widest = WIDER * self.solver.window
            self._try(np.sort(split[np.argsort(self.margin[split], kind="stable")[:widest]]), 2)
        self.descend()
        if row.value > value:
            row.set(before)
            self.descend()

    def descend(self) -> None:
        """Windows of the cheapest entries, of the best pairs, and wider ones, until none gains."""
        row, size = self.row, self.solver.window
        kinds: list[Callable[[], Items]] = [lambda: row.cheapest(size)]
        if isinstance(row, SelectionRow) and not row.image.labels.any():
            pairing = row
            kinds.append(lambda: pairing.pairs(self.space, self.margin, size))
        if len(row.pruned) > size:
            kinds.append(lambda: row.cheapest(WIDER * size))
        idle = turn = 0
        while idle < len(kinds) and not self.control.stopped():
            idle = 0 if self._try(kinds[turn % len(kinds)](), 1) else idle + 1
            turn += 1

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
