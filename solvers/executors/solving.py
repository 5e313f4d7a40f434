"""Several problems at once, each solved whole by one worker of an executor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from solvers.executors.spread import spread
from solvers.problem import SubsetProblem
from solvers.solution import Solution, Status
from solvers.solver import Solver


@dataclass(frozen=True)
class Task:
    """A call of `solvers.solve`.

    Attributes:
        problem: to be solved.
        solver: by name, or with fields of its own.
        options: of `solve`; no callback.
    """

    problem: SubsetProblem
    solver: str | Solver
    options: Mapping[str, Any] = field(default_factory=dict)


def solve_all(
    executor: Executor,
    tasks: Sequence[Task],
    *,
    progress: Callable[[], object] = lambda: None,
    stopped: Callable[[], Status | None] = lambda: None,
    until: float | None = None,
) -> list[Solution | None]:
    """`solve` for every task, on an executor's workers; the largest begin first.

    Args:
        executor: of any kind.
        tasks: what to solve.
        progress: called now and then.
        stopped: why to stop. After Ctrl-C a worker of this machine answers with its incumbent.
        until: `time.time()` at which all must be done, or None.

    Returns:
        A solution for every task, as `solve` gives it here, but for what a time limit cuts off; None for
        those that were not done when it was stopped.
    """
    order = sorted(range(len(tasks)), key=lambda i: -tasks[i].problem.W.size * tasks[i].problem.n)
    items = [(tasks[i], until) for i in order]
    found = dict(
        zip(order, spread(executor, _solved, items, progress=progress, stopped=stopped), strict=True)
    )
    return [found[i] for i in range(len(tasks))]


def _solved(item: tuple[Task, float | None]) -> Solution:
    """`solve` of a task, on a worker."""
    from solvers.solve import solve

    task, until = item
    options = dict(task.options)
    if until is not None:
        options["time_limit"] = max(until - time.time(), 1e-3)
    return solve(task.problem, task.solver, **options)
