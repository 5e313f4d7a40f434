"""Many blocks at once: their trees searched side by side by a few threads, in shared memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import numpy as np

from solvers.control import Control
from solvers.exact.tree.block_tree import BlockTree
from solvers.runtime.parallel import one_thread_each, workers
from solvers.solution import Status

POLL = 0.05
"""Seconds between two looks at the limits."""


def grow_forest(
    trees: Sequence[BlockTree],
    stopped: Callable[[], Status | None],
    progress: Callable[[], None],
    node_limit: int | None = None,
    due: Callable[[], bool] = lambda: False,
    save: Callable[[], object] = lambda: None,
) -> Status:
    """Work on all trees until they are proven or a limit stops them; why it ended.

    Each thread takes the unfinished tree with the fewest nodes so far for a turn at a time. A tree's own
    course does not depend on the others, so what is proven is the same for any thread count. Trees that
    are hungry for memory wait until no other goes on, and then share what is left: also that is the same
    for any thread count.

    Args:
        trees: the trees, changed in place.
        stopped: polled often; a status ends the work within a moment.
        progress: called now and then from this thread.
        node_limit: nodes over all trees at which to stop, give or take a slice of each thread's.
        due: polled often; if true, `save` is called as soon as no tree is at work.
        save: keeps the trees as they are.
    """
    threads = min(workers(), len(trees))
    memory = sum(tree.memory for tree in trees)
    running: dict[Future[None], int] = {}
    pausing = Event()

    def waiting() -> list[int]:
        busy = set(running.values())
        left = [i for i, tree in enumerate(trees) if _goes_on(tree) and i not in busy]
        return sorted(left, key=lambda i: trees[i].nodes)

    with (
        _halted(trees, False),
        one_thread_each(),
        ThreadPoolExecutor(max(threads, 1)) as pool,
        _halted(trees, True),
    ):
        while True:
            if reason := stopped():
                return reason
            over = node_limit is not None and sum(tree.nodes for tree in trees) >= node_limit
            if over and not running:
                return Status.NODE_LIMIT
            saving = over or due()
            if saving:
                pausing.set()
            for i in [] if saving else waiting()[: threads - len(running)]:
                running[pool.submit(_turn, trees[i], pausing)] = i
            if saving and not running:
                save()
                pausing.clear()
            elif not running and not _fed(trees, memory):
                break
            done = [future for future in running if future.done()]
            if not done:
                time.sleep(0.0005)
                continue
            for future in done:
                del running[future]
                future.result()
            progress()
    return Status.MEMORY_LIMIT if any(tree.full for tree in trees) else Status.OPTIMAL


@contextmanager
def _halted(trees: Sequence[BlockTree], after: bool) -> Iterator[None]:
    """Leave the trees' slices to end at once, or to go on, afterwards."""
    try:
        yield
    finally:
        for tree in trees:
            tree.halt[0] = after


def _goes_on(tree: BlockTree) -> bool:
    return not (tree.done or tree.full or tree.hungry)


def _turn(tree: BlockTree, pausing: Event) -> None:
    end = time.perf_counter() + 4 * POLL
    while _goes_on(tree) and not tree.halt[0] and not pausing.is_set() and time.perf_counter() < end:
        tree.work()


def _fed(trees: Sequence[BlockTree], memory: int) -> bool:
    """Share what memory is left among the hungry trees; whether there are any."""
    hungry = [tree for tree in trees if tree.hungry]
    left = memory - sum(tree.storage.bytes for tree in trees if not tree.hungry)
    for tree in hungry:
        tree.feed(left // len(hungry))
    return bool(hungry)


def block_gap(control: Control, values: list[float]) -> float:
    """Each block's relative gap, so that together they meet the gap asked of the whole."""
    if control.offset == control.margin == 0.0 and min(values) >= 0.0:
        return control.gap
    size = float(np.abs(values).sum())
    return 0.9 * control.worthwhile(sum(values)) / size if size > 0 else control.gap
