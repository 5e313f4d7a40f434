"""Many blocks at once: their trees searched side by side by a few threads, in shared memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.control import Control, working
from solvers.exact.grouped.group_tree import GroupTree
from solvers.exact.selections.selection_tree import SelectionTree
from solvers.exact.tree.block_tree import BlockTree, Settings
from solvers.executors.spread import spread
from solvers.form.blocks import Block
from solvers.runtime.parallel import one_thread_each, workers
from solvers.solution import Status

Tree = BlockTree | GroupTree | SelectionTree
"""A tree of any kind."""
POLL = 0.05
"""Seconds between two looks at the limits."""
TELLING = 20.0
"""Least time between two tellings of progress, in times of what one takes, and a second at most: there may be
thousands of trees."""
NARROW = 128
"""Entries up to which a lone tree's first slice, of some milliseconds, is not worth a thread's start."""
LIMITS = (500, 5_000, 50_000, None)
"""Nodes that an executor's worker may give a tree before the others get as many, where time is limited."""


def grow_forest(
    trees: Sequence[Tree],
    stopped: Callable[[], Status | None],
    progress: Callable[[], None],
    node_limit: int | None = None,
    due: Callable[[], bool] = lambda: False,
    save: Callable[[], object] = lambda: None,
    executor: Executor | None = None,
    remaining: float | None = None,
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
        executor: whose workers grow the trees, where there is no node limit, as far as their own memory goes;
            what they leave is gone on with here. None for threads of this process.
        remaining: seconds that they have, or None.
    """
    if executor is not None and node_limit is None and len(trees) > 1:
        _grow_elsewhere(trees, executor, stopped, progress, remaining)
    if len(trees) == 1 and trees[0].block.n <= NARROW and node_limit is None and not stopped():
        trees[0].work()
        progress()
    if all(tree.done for tree in trees):
        return Status.OPTIMAL
    threads = min(workers(), len(trees))
    memory = sum(tree.memory for tree in trees)
    running: dict[Future[None], int] = {}
    pausing = Event()
    tell = 0.0

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
            idle = 0 if saving else threads - len(running)
            for i in waiting()[:idle] if idle else []:
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
            start = time.perf_counter()
            if start >= tell:
                progress()
                end = time.perf_counter()
                tell = end + min(1.0, TELLING * (end - start))
    return Status.MEMORY_LIMIT if any(tree.full for tree in trees) else Status.OPTIMAL


def _grow_elsewhere(
    trees: Sequence[Tree],
    executor: Executor,
    stopped: Callable[[], Status | None],
    progress: Callable[[], None],
    remaining: float | None,
) -> None:
    """Have every tree grown by a worker, and take over what became of it."""
    until = None if remaining is None else time.time() + remaining
    for limit in LIMITS if remaining is not None else LIMITS[-1:]:
        live = [tree for tree in trees if _goes_on(tree)]
        items = [(type(tree), tree.block, tree.settings, tree.arrays(), limit, until) for tree in live]
        grown = spread(executor, _grown, items, progress=progress, stopped=stopped)
        for tree, arrays in zip(live, grown, strict=True):
            if arrays is not None:
                tree.restore(arrays)
        if stopped():
            return


def _grown(
    item: tuple[type[Tree], Block, Settings, dict[str, NDArray[Any]], int | None, float | None],
) -> dict[str, NDArray[Any]]:
    """What becomes of a tree, on a worker."""
    kind, block, settings, arrays, limit, until = item
    tree = kind(block, settings).restore(arrays)
    with one_thread_each(), working(until) as control:
        while _goes_on(tree) and (limit is None or tree.nodes < limit) and not control.stopped():
            tree.work()
    return tree.arrays()


@contextmanager
def _halted(trees: Sequence[Tree], after: bool) -> Iterator[None]:
    """Leave the trees' slices to end at once, or to go on, afterwards."""
    try:
        yield
    finally:
        for tree in trees:
            tree.halt[0] = after


def _goes_on(tree: Tree) -> bool:
    return not (tree.done or tree.full or tree.hungry)


def _turn(tree: Tree, pausing: Event) -> None:
    end = time.perf_counter() + 4 * POLL
    while _goes_on(tree) and not tree.halt[0] and not pausing.is_set() and time.perf_counter() < end:
        tree.work()


def _fed(trees: Sequence[Tree], memory: int) -> bool:
    """Share what memory is left among the hungry trees; whether there are any."""
    hungry = [tree for tree in trees if tree.hungry]
    left = memory - sum(tree.bytes for tree in trees if not tree.hungry)
    for tree in hungry:
        tree.feed(left // len(hungry))
    return bool(hungry)


def block_gap(control: Control, values: list[float]) -> float:
    """Each block's relative gap, so that together they meet the gap asked of the whole."""
    if control.offset == control.margin == 0.0 and min(values) >= 0.0:
        return control.gap
    size = float(np.abs(values).sum())
    return 0.9 * control.worthwhile(sum(values)) / size if size > 0 else control.gap
