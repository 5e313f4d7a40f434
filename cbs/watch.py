"""One pruning's progress, time limit and interruption, over all its layers and searches."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import ArrayLike

from cbs.request import Request
from solvers import (
    Progress,
    Solution,
    Solver,
    Status,
    SubsetProblem,
    Together,
    cold_start,
    get_solver,
    solve,
    solve_together,
)  # fmt: skip
from solvers.auto import Auto
from solvers.control import Control
from solvers.executors.solving import Task, solve_all
from solvers.runtime.rehearsal import rehearse_arithmetic
from solvers.runtime.tensors import load_torch

log = logging.getLogger("cbs")
HEARTBEAT = 0.5
"""Seconds between two steps told of work that has nothing else to tell."""


@dataclass(frozen=True)
class Step:
    """Where a pruning stands.

    Attributes:
        method: the method that is run.
        stage: `measure` (the dense network), `compile`, `curvature`, `curves`, `select`, `certify`,
            `norms`, `evaluate`, `reselect` (whose index and count are of rounds), `refit` (of steps) or
            `finetune` (of epochs).
        layer: name of the layer at work, or None.
        index: number of layers done in this stage.
        count: number of layers.
        progress: incumbent and bound of the search that runs, or None.
        asked: the sparsity that was asked for.
        part: number of the pruning at work, from 1, where several lead to the sparsity.
        parts: how many lead there.
    """

    method: str
    stage: str
    layer: str | None = None
    index: int = 0
    count: int = 0
    progress: Progress | None = None
    asked: float = 0.0
    part: int = 1
    parts: int = 1


Callback = Callable[[Step], Any]
"""Called with every `Step`; a true answer stops the pruning, which keeps what it has found."""


class Watch:
    """Runs the searches of one pruning within its limits and tells the callback how they go."""

    def __init__(self, method: str, request: Request, count: int, callback: Callback | None) -> None:
        self.control = Control(gap=request.gap, seed=request.seed, device=request.device)
        self.method, self.asked, self.count, self.callback = method, request.fraction, count, callback
        self._request, self._left = request, request.time_limit
        self._told, self._logged = 0.0, ("", "")
        self.compiling = 0.0

    def prepare(self, searches: bool = True, solver: Solver | None = None) -> None:
        """Have compiled what the searches and bounds will use, if any, and start the time limit's clock.

        Where there is no such clock, and layers have budgets of their own, every search compiles no more than
        its problem takes (`solve`); those that can do without do not even wait for that.
        """
        request = self._request
        if not (searches or request.certify):
            return self.resume()
        self.tell("compile")
        load_torch()
        if request.pooled or request.time_limit is not None or self.control.executor is not None:
            rehearse_arithmetic()
            for name in ("relaxation", "greedy"):
                get_solver(name).prepare()
            if solver is not None:
                solver.prepare()
        self.resume()

    def pause(self) -> None:
        """Stop the clock of the time limit, while others are at work."""
        self._left, self.control.deadline = self.control.remaining, None

    def resume(self) -> None:
        """Let the clock of the time limit run, from where it stood."""
        self.control.deadline = None if self._left is None else time.perf_counter() + self._left

    @property
    def left(self) -> float | None:
        """Seconds of the time limit that are left when the clock stands still; None without a limit."""
        return self._left

    def allow(self, seconds: float | None) -> None:
        """Set what is left of the time limit, while the clock stands still."""
        self._left = seconds

    @contextmanager
    def sparing(self, share: float) -> Iterator[None]:
        """Leave a share of the time that is left for what comes after."""
        deadline, left = self.control.deadline, self.control.remaining
        if deadline is not None and left is not None:
            self.control.deadline = deadline - share * left
        yield
        self.control.deadline = deadline

    @property
    def interrupted(self) -> bool:
        """Whether the user asked to stop."""
        return self.control.interrupted

    def tell(
        self, stage: str, layer: str | None = None, index: int = 0, progress: Progress | None = None
    ) -> bool:
        """Tell the callback; whether the pruning must stop."""
        self._told = time.perf_counter()
        if (stage, layer or "") != self._logged:
            self._logged = stage, layer or ""
            where = "" if layer is None else f" layer {layer}"
            log.debug("%s at %g%%: %s%s", self.method, 100 * self.asked, stage, where)
        if self.callback is not None and self.callback(
            Step(self.method, stage, layer, index, self.count, progress, self.asked)
        ):
            self.control.interrupted = True
        return self.interrupted

    def computing(self, key: Hashable) -> None:
        """Tell that something of the network is computed, by its key in the memo."""
        log.debug("computing %s", " of ".join(map(str, key)) if isinstance(key, tuple) else key)
        self.tell("curves" if isinstance(key, tuple) and key[0] == "curves" else "curvature")

    def curving(self, index: int) -> Status | None:
        """Tell now and then that a layer's lower curves are computed; why to stop, or None."""
        if time.perf_counter() - self._told > HEARTBEAT:
            self.tell("curves", index=index)
        return self.control.stopped()

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
        if solver == "auto":
            solver = Auto(patience=self._request.patience)
        self._make_ready(problem, get_solver(solver), stage, layer, index)
        limit = self._limit(share)
        solution = solve(
            problem, solver, gap=self.control.gap, seed=self.control.seed, device=self.control.device,
            time_limit=limit, warm_start=warm_start, executor=self.control.executor,
            callback=lambda progress: self.tell(stage, layer, index, progress),
        )  # fmt: skip
        if solution.status is Status.INTERRUPTED:
            self.control.interrupted = True
        return solution

    def _make_ready(
        self, problem: SubsetProblem, solver: Solver, stage: str, layer: str | None, index: int
    ) -> None:
        """Have compiled what a search waits for, and say so; the seconds of that are not the method's."""
        device = self.control.device
        if self.control.executor is None and cold_start.suits(problem, solver, device):
            return
        start, made = time.perf_counter(), cold_start.is_made(problem, solver)
        if not made:
            self.tell("compile", layer, index)
        cold_start.make_ready(problem, solver, device)
        if not made:
            self.tell(stage, layer, index)
        self.compiling += time.perf_counter() - start

    def solve_all(
        self, problems: Sequence[SubsetProblem], solvers: Sequence[str | Solver], starts: Sequence[Any]
    ) -> list[Solution | None]:
        """`solvers.solve` on several problems at once, by the workers of the executor, without a time limit.

        Args:
            problems: what to solve.
            solvers: of each.
            starts: masks to start from, or None.

        Returns:
            A solution for each; None for those that Ctrl-C left undone.
        """
        assert self.control.executor is not None
        tasks = [
            Task(problem, Auto(patience=self._request.patience) if solver == "auto" else solver, {
                "gap": self.control.gap, "seed": self.control.seed, "device": self.control.device,
                "warm_start": start,
            })
            for problem, solver, start in zip(problems, solvers, starts, strict=True)
        ]  # fmt: skip

        def progress() -> None:
            if time.perf_counter() - self._told > HEARTBEAT:
                self.tell("select")

        found = solve_all(self.control.executor, tasks, progress=progress, stopped=self.control.stopped)
        if any(solution is not None and solution.status is Status.INTERRUPTED for solution in found):
            self.control.interrupted = True
        return found

    def solve_together(
        self, problems: Sequence[SubsetProblem], *, share: float, patience: bool, widest: int
    ) -> Together:
        """`solvers.solve_together` on the layers of a network.

        Args:
            problems: that share their budgets.
            share: fraction of the time left that this search may take.
            patience: whether it ends with the request's patience, where there is no time limit.
            widest: rows of more inputs are not searched.
        """
        limit = self._limit(share)
        patient = limit is None and patience and self._request.patience != float("inf")
        found = solve_together(
            problems, gap=self.control.gap, seed=self.control.seed, device=self.control.device,
            time_limit=self._request.patience if patient else limit, widest=widest,
            executor=self.control.executor,
            callback=lambda progress: self.tell("select", progress=progress),
        )  # fmt: skip
        if found.status is Status.INTERRUPTED:
            self.control.interrupted = True
        if patient and found.status is Status.TIME_LIMIT:
            return replace(found, status=Status.PATIENCE)
        return found

    def _limit(self, share: float | None) -> float | None:
        left = self.control.remaining
        return None if share is None or left is None else max(share * left, 1e-3)
