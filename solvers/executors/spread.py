"""One function over many items on an executor; what a lost worker had is done again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, wait
from typing import Any, TypeVar

from solvers.executors.failures import ProcessDied
from solvers.executors.message import dumps, loads
from solvers.problem import SubsetProblem
from solvers.solution import Status
from solvers.solver import Solver

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")

POLL = 0.05
"""Seconds between two looks at the limits."""
AGAIN = 3
"""Times that an item is sent out whose worker is lost; after that it is done here."""
LAST = 3.0
"""Seconds that workers have to hand in what they have, once time is up or Ctrl-C was pressed."""
EACH = 4
"""Chunks for every worker, so that they end at about the same time."""


def chunks(items: Sequence[Item], executor: Executor) -> list[list[Item]]:
    """The items in their order, in as many parts of about one size as keep all workers busy."""
    count = min(len(items), EACH * workers_of(executor))
    return [list(items[len(items) * i // count : len(items) * (i + 1) // count]) for i in range(count)]


def done(request: bytes) -> Any:
    """What a function gives for an item, both pickled so that arrays that can't be written to stay such.

    Compiled code is kept for those; for others it would be compiled anew.
    """
    function, item = loads(request)
    return function(item)


def workers_of(executor: Executor) -> int:
    """How many calls an executor runs at once, as far as it tells."""
    told = getattr(executor, "workers", getattr(executor, "_max_workers", 1))
    return max(1, told) if isinstance(told, int) else 1


def spread(
    executor: Executor,
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    progress: Callable[[], object] = lambda: None,
    stopped: Callable[[], Status | None] = lambda: None,
) -> list[Result | None]:
    """`[function(item) for item in items]` on an executor's workers.

    Args:
        executor: of any kind. An item whose worker is lost is sent again, and in the end done here.
        function: importable by the workers; the same for the same item wherever it runs.
        items: what to call it with.
        progress: called now and then, and after every item.
        stopped: polled often. Once it says why to stop, there are `LAST` seconds for what is under way, which
            knows of a time limit itself. After Ctrl-C nothing is begun any more, and what is at work is
            interrupted, where the executor can do that.

    Returns:
        A result for every item, None where there was no time.

    Raises:
        Exception: the first that the function raised.
    """
    results: list[Result | None] = [None] * len(items)
    tries = [0] * len(items)
    waiting: dict[Future[Any], int] = {}
    here: list[int] = []

    def send(i: int) -> None:
        tries[i] += 1
        try:
            waiting[executor.submit(done, dumps((function, items[i])))] = i
        except RuntimeError:  # it is broken or shut down
            here.append(i)

    left = None
    try:
        for i in range(len(items)):
            send(i)
        while waiting:
            ended, _ = wait(waiting, timeout=POLL)
            for future in ended:
                i = waiting.pop(future)
                try:
                    results[i] = future.result()
                except (ProcessDied, BrokenExecutor, CancelledError) as error:
                    if stopped():
                        continue
                    log.warning("a worker was lost, its part is done again: %s", error)
                    send(i) if tries[i] < AGAIN else here.append(i)
            progress()
            reason = stopped()
            if reason and left is None:
                left = LAST / POLL
                if reason is Status.INTERRUPTED:
                    waiting = {future: i for future, i in waiting.items() if not future.cancel()}
                    getattr(executor, "interrupt", lambda: None)()
            if left is not None and not ended:
                left -= 1
                if left <= 0:
                    break
    finally:
        for future in waiting:
            future.cancel()
    for i in here:
        if stopped():
            break
        results[i] = function(items[i])
        progress()
    return results


def warm(executor: Executor | None, solver: Solver, like: SubsetProblem | None = None) -> None:
    """Have an executor's workers import and compile what a solver takes, before its clock starts.

    Args:
        executor: whose workers; None for nobody's.
        solver: which.
        like: as in `Solver.prepare`.
    """
    if executor is not None:
        spread(executor, _warmed, [(solver, like)] * workers_of(executor))


def _warmed(solver_and_like: tuple[Solver, SubsetProblem | None]) -> None:
    solver, like = solver_and_like
    solver.prepare(like)
