"""Many rows' cost curves, a thread a row: first masks and bounds, then searches until gaps are proven."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from solvers.bounds.curves import WIDE_KNOTS
from solvers.bounds.split import WIDE, split_blocks
from solvers.control import Control, working
from solvers.exact.curves.search import CurveSearch
from solvers.exact.tree.block_tree import DEFAULT, Settings
from solvers.executors.spread import chunks, spread
from solvers.form.blocks import blocks
from solvers.greedy.curves import row_curves
from solvers.problem import SubsetProblem
from solvers.runtime.parallel import one_thread_each, workers
from solvers.solution import Status

LIMITS = (2_000, 20_000, 200_000, None)
"""Nodes that a count may take before the others get as many: a time limit then finds all of them alike."""
SPARE = 0.1
"""Share of the gap that is left for what rounding takes when rows are added up."""
POLL = 0.05
"""Seconds between two looks at the limits."""

Item = TypeVar("Item")
Gaps = Callable[[CurveSearch, int], float]
Part = tuple[Sequence[tuple[Any, ...]], float | None]


def start_curves(problem: SubsetProblem, control: Control, settings: Settings = DEFAULT) -> list[CurveSearch]:
    """Every row's greedy curve and first bounds.

    Rows of up to `WIDE` inputs get a split at half their count, from which those of other counts follow, and
    masks that no swap improves; wider ones get splits at `WIDE_KNOTS` and keep their greedy masks.

    Args:
        problem: a reduced problem; its budget does not matter.
        control: limits; a stopped search leaves the greedy curves.
        settings: of the trees to come, which are recorded if the control says so.
    """
    settings = replace(settings, record=control.certify)
    m, n = problem.W.shape
    greedy = row_curves(
        problem.W, problem.hessian, refit=problem.refit, gradient=problem.G,
        executor=control.executor if n > WIDE else None,
    )  # fmt: skip
    found = blocks(problem, np.full(m, n // 2))
    values = [None if n <= WIDE else greedy.values[r] for r in range(m)]
    rows = [CurveSearch(block, greedy.order[r], values[r], settings) for r, block in enumerate(found)]
    if n > WIDE:
        for k in (round(share * n) for share in WIDE_KNOTS):
            learn(rows, [k] * m, control)
        return rows
    if n > 1 and not control.stopped():
        learn(rows, [n // 2] * m, control)

    if control.executor is not None:
        _elsewhere(_readied, [(row,) for row in rows], control.executor, control.remaining, control.stopped)
        return rows
    beside(lambda row: _ready(row, control.stopped), rows, control.stopped)
    return rows


def _ready(row: CurveSearch, stopped: Callable[[], object]) -> None:
    """Masks that no swap improves, and a split, at every count."""
    row.polish(stopped)
    for k in [*range(row.n // 2, row.n + 1), *range(row.n // 2, -1, -1)]:
        if stopped():
            return
        row.root(k)


def learn(rows: Sequence[CurveSearch], counts: Sequence[int], control: Control) -> None:
    """Splits of rows of one layer at a count each, found together; they bound all other counts, too.

    Once stopped, nothing is learnt: a split that took no time is worth as much.
    """
    if control.stopped():
        return
    found = [row.at(k) for row, k in zip(rows, counts, strict=True)]
    splits = split_blocks(found, device=control.device, stopped=control.stopped)
    worth = [split.steps > 0 or block.trivial for block, split in zip(found, splits, strict=True)]
    items = [item for item, some in zip(zip(rows, counts, splits, strict=True), worth, strict=True) if some]
    beside(lambda item: item[0].learn(item[1], item[2]), items)


def close_curves(
    rows: Sequence[CurveSearch],
    counts: Sequence[Sequence[int]],
    gaps: Gaps,
    stopped: Callable[[], Status | None],
    progress: Callable[[], object] = lambda: None,
    node_limit: int | None = None,
    executor: Executor | None = None,
    remaining: Callable[[], float | None] = lambda: None,
) -> Status:
    """Search every row at some counts; why it ended.

    A thread takes a row and its counts one after another, so that what is found does not depend on the
    number of threads.

    Args:
        rows: the rows, changed in place.
        counts: of every row, those to prove.
        gaps: the gap to prove of a row at a count, relative to its value.
        stopped: polled often; a status ends the work.
        progress: called now and then from this thread.
        node_limit: nodes of all rows together, from now on.
        executor: that searches them, if there is no node limit; None for threads of this process.
        remaining: seconds that its workers have; None for no limit.
    """
    before = sum(row.nodes for row in rows)

    def halt() -> Status | None:
        spent = sum(row.nodes for row in rows) - before
        over = node_limit is not None and spent >= node_limit
        return stopped() or (Status.NODE_LIMIT if over else None)

    def search(item: tuple[CurveSearch, Sequence[int], int | None]) -> None:
        row, wanted, limit = item
        _search(row, wanted, limit, gaps, halt)

    for limit in LIMITS:
        work = [
            (row, [k for k in wanted if not row.closed(k, gaps(row, k))], limit)
            for row, wanted in zip(rows, counts, strict=True)
        ]
        work = [item for item in work if item[1]]
        if executor is not None and node_limit is None:
            sent = [(row, wanted, limit, gaps) for row, wanted, limit in work]
            _elsewhere(_searched, sent, executor, remaining(), lambda: _why(stopped), progress)
        else:
            beside(search, work, progress)
        if reason := halt():
            return reason
    done = all(row.closed(k, gaps(row, k)) for row, wanted in zip(rows, counts, strict=True) for k in wanted)
    return Status.OPTIMAL if done else Status.NODE_LIMIT


def _search(
    row: CurveSearch, wanted: Sequence[int], limit: int | None, gaps: Gaps, halt: Callable[[], object]
) -> None:
    for k in wanted:
        if halt():
            return
        row.prove(k, gaps(row, k), halt, limit)
        row.follow(k, 1)


def _why(stopped: Callable[[], Status | None]) -> Status | None:
    """Why to stop for good; not only to keep what is found."""
    reason = stopped()
    return None if reason is Status.FEASIBLE else reason


def _elsewhere(
    work: Callable[[Part], list[dict[str, Any]]],
    items: Sequence[tuple[Any, ...]],
    executor: Executor,
    seconds: float | None,
    stopped: Callable[[], Status | None],
    progress: Callable[[], object] = lambda: None,
) -> None:
    """Have rows worked on by an executor's workers, and take over what became of them.

    Args:
        work: on a part of the items, and how many seconds it may take.
        items: of which the first entry is a row.
        executor: whose workers.
        seconds: that are left, or None.
        stopped: why to stop; rows that are not back by then stay as they are.
        progress: called now and then.
    """
    parts = chunks(items, executor) if items else []
    until = None if seconds is None else time.time() + seconds
    found = spread(executor, work, [(part, until) for part in parts], progress=progress, stopped=stopped)
    for part, states in zip(parts, found, strict=True):
        for item, state in zip(part, states or (), strict=states is not None):
            vars(item[0]).update(state)


def _readied(part: Part) -> list[dict[str, Any]]:
    """What becomes of rows by `_ready`, on a worker."""
    items, until = part
    with one_thread_each(), working(until) as control:
        for (row,) in items:
            _ready(row, control.stopped)
    return [row.state() for (row,) in items]


def _searched(part: Part) -> list[dict[str, Any]]:
    """What becomes of rows by `_search`, on a worker."""
    items, until = part
    with one_thread_each(), working(until) as control:
        for row, wanted, limit, gaps in items:
            _search(row, wanted, limit, gaps, control.stopped)
    return [row.state() for row, *_ in items]


def gap_of(row: CurveSearch, k: int, gap: float, offset: float = 0.0, margin: float = 0.0) -> float:
    """The gap of a reduced row that makes `gap` of the original's, whose values are higher by `offset`.

    Bounds are going to be lowered by `margin`, and a search can't go on below the row's noise.
    """
    value = float(row.values[k])
    whole = (1.0 - SPARE) * gap * abs(value + offset)
    width = max(whole - row.noise - margin, 0.5 * whole - row.noise, row.noise)
    return width / abs(value) if value else float(np.finfo(float).max)


def beside(
    work: Callable[[Item], None], items: Sequence[Item], progress: Callable[[], object] = lambda: None
) -> None:
    """Call `work` on all items, a thread each as far as there are cores, with `progress` now and then."""
    with one_thread_each(), ThreadPoolExecutor(workers()) as pool:
        waiting = {pool.submit(work, item) for item in items}
        while waiting:
            done, waiting = wait(waiting, timeout=POLL)
            try:
                for future in done:
                    future.result()
                progress()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
