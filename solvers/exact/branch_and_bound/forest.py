"""Many blocks at once: their trees grown side by side by a few threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from solvers.control import Control
from solvers.exact.branch_and_bound.block_tree import BlockTree
from solvers.parallel import one_thread_each, workers
from solvers.solution import Status

POLL = 0.05
"""Seconds between two looks at the limits."""


def grow_forest(
    trees: Sequence[BlockTree],
    stopped: Callable[[], Status | None],
    progress: Callable[[], None],
    node_limit: int | None = None,
) -> Status:
    """Work on all trees until they are proven or a limit stops them; why it ended.

    Each thread takes the unfinished tree with the most left to prove for a turn at a time. A tree's
    own course does not depend on the others, so what is proven is the same for any thread count.

    Args:
        trees: the trees, changed in place.
        stopped: polled often; a status ends the work.
        progress: called now and then from this thread.
        node_limit: nodes over all trees at most.
    """
    threads = min(workers(), len(trees))
    busy: set[int] = set()
    halt = False

    def turn(i: int) -> None:
        end = time.perf_counter() + 4 * POLL
        while not halt and not trees[i].work() and not trees[i].full and time.perf_counter() < end:
            pass

    def waiting() -> list[int]:
        left = [i for i, tree in enumerate(trees) if not (tree.done or tree.full or i in busy)]
        return sorted(left, key=lambda i: trees[i].nodes)

    reason: Status | None = None
    with one_thread_each(), ThreadPoolExecutor(max(threads, 1)) as pool:
        running: dict[Future[None], int] = {}
        while True:
            reason = stopped()
            if reason is None and node_limit is not None and sum(t.nodes for t in trees) >= node_limit:
                reason = Status.NODE_LIMIT
            if reason is not None:
                halt = True
                break
            for i in waiting()[: threads - len(running)]:
                busy.add(i)
                running[pool.submit(turn, i)] = i
            if not running:
                break
            done = [future for future in running if future.done()]
            if not done:
                time.sleep(0.0005)
                continue
            for future in done:
                busy.discard(running.pop(future))
                future.result()
            progress()
    if reason is not None:
        return reason
    return Status.NODE_LIMIT if any(tree.full for tree in trees) else Status.OPTIMAL


def block_gap(control: Control, values: list[float]) -> float:
    """Each block's relative gap, so that together they meet the gap asked of the whole."""
    if control.offset == 0.0 and min(values) >= 0.0:
        return control.gap
    size = float(np.abs(values).sum())
    return 0.9 * control.gap * abs(sum(values) + control.offset) / size if size > 0 else control.gap
