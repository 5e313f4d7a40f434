"""Rows side by side: a thread a core, each with single-threaded linear algebra."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from solvers.runtime.plain import plain

Item = TypeVar("Item")
Result = TypeVar("Result")
THREADS = "SOLVERS_NUM_THREADS"
"""Environment variable with the most rows that are worked on at once."""


class _Narrowed:
    """Whoever keeps BLAS and OpenMP to one thread, counted: the first sets the limit, the last lifts it."""

    def __init__(self) -> None:
        self.lock, self.inside = Lock(), 0

    def enter(self) -> None:
        with self.lock:
            if not self.inside:
                self.limit = _controller().limit(limits=1)
            self.inside += 1

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.limit.restore_original_limits()


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


_narrowed = _Narrowed()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: setattr(_narrowed, "lock", Lock()))


def workers() -> int:
    """How many rows are worked on at once: this process's cores, or fewer if `THREADS` says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = os.environ.get(THREADS, "")
    return min(cores, int(most)) if most.isdecimal() and int(most) else cores


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Keep BLAS and OpenMP to one thread: small matrices lose more than they gain by more of them.

    (`torch.set_num_threads` is left alone: raised again, it can stall a batched LAPACK call.)
    """
    _narrowed.enter()
    try:
        yield
    finally:
        _narrowed.leave()


def side_by_side(
    work: Callable[[Item], Result], items: Iterable[Item], most: int | None = None
) -> list[Result]:
    """`[work(item) for item in items]`, in threads; for work that releases the interpreter lock.

    Where there is one item or one thread, it is done here: a thread's start takes longer than many a row.

    Args:
        work: what to do.
        items: with each of these.
        most: items in work at once, at least one; None for as many as there are cores.
    """
    threads = 1 if plain() else workers() if most is None else max(1, min(most, workers()))
    todo = list(items)
    if min(threads, len(todo)) < 2:
        with one_thread_each():
            return [work(item) for item in todo]
    with one_thread_each(), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, todo))
