"""One pruning's progress, time limit and interruption, over all its layers and searches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from cbs.request import Request
from solvers import Progress, Solution, Solver, Status, SubsetProblem, Together, solve, solve_together
from solvers.control import Control


@dataclass(frozen=True)
class Step:
    """Where a pruning stands.

    Attributes:
        method: the method that is run.
        stage: `select`, `certify` or `evaluate`.
        layer: name of the layer at work, or None.
        index: number of layers done in this stage.
        count: number of layers.
        progress: incumbent and bound of the search that runs, or None.
        asked: the sparsity that was asked for.
    """

    method: str
    stage: str
    layer: str | None = None
    index: int = 0
    count: int = 0
    progress: Progress | None = None
    asked: float = 0.0


Callback = Callable[[Step], Any]
"""Called with every `Step`; a true answer stops the pruning, which keeps what it has found."""


class Watch:
    """Runs the searches of one pruning within its limits and tells the callback how they go."""

    def __init__(self, method: str, request: Request, count: int, callback: Callback | None) -> None:
        limit = request.time_limit
        deadline = None if limit is None else time.perf_counter() + limit
        self.control = Control(gap=request.gap, seed=request.seed, device=request.device, deadline=deadline)
        self.method, self.asked, self.count, self.callback = method, request.fraction, count, callback

    @property
    def interrupted(self) -> bool:
        """Whether the user asked to stop."""
        return self.control.interrupted

    def tell(
        self, stage: str, layer: str | None = None, index: int = 0, progress: Progress | None = None
    ) -> bool:
        """Tell the callback; whether the pruning must stop."""
        if self.callback is not None and self.callback(
            Step(self.method, stage, layer, index, self.count, progress, self.asked)
        ):
            self.control.interrupted = True
        return self.interrupted

    def solve(
        self,
        problem: SubsetProblem,
        solver: str | Solver,
        *,
        stage: str,
        layer: str | None,
        index: int = 0,
        share: float | None = 1.0,
        warm_start: ArrayLike | None = None,
    ) -> Solution:
        """`solvers.solve` on one problem.

        Args:
            problem: what to solve.
            solver: by name, or with fields of its own.
            stage: for the callback.
            layer: for the callback.
            index: for the callback.
            share: fraction of the time left that this search may take; None for no limit.
            warm_start: a mask to start from.
        """
        limit = self._limit(share)
        solution = solve(
            problem, solver, gap=self.control.gap, seed=self.control.seed, device=self.control.device,
            time_limit=limit, warm_start=warm_start,
            callback=lambda progress: self.tell(stage, layer, index, progress),
        )  # fmt: skip
        if solution.status is Status.INTERRUPTED:
            self.control.interrupted = True
        return solution

    def solve_together(
        self, problems: Sequence[SubsetProblem], *, share: float, patience: float | None, widest: int
    ) -> Together:
        """`solvers.solve_together` on the layers of a network.

        Args:
            problems: that share their budgets.
            share: fraction of the time left that this search may take.
            patience: seconds that it may take at most; None for no limit.
            widest: rows of more inputs are not searched.
        """
        limits = [limit for limit in (self._limit(share), patience) if limit is not None]
        found = solve_together(
            problems, gap=self.control.gap, seed=self.control.seed, device=self.control.device,
            time_limit=min(limits, default=None), widest=widest,
            callback=lambda progress: self.tell("select", progress=progress),
        )  # fmt: skip
        if found.status is Status.INTERRUPTED:
            self.control.interrupted = True
        return found

    def _limit(self, share: float | None) -> float | None:
        left = self.control.remaining
        return None if share is None or left is None else max(share * left, 1e-3)
