"""Processes of this machine: a thread each, which holds its process to limits (a guarded process pool)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from solvers.executors.base import Call, Workers
from solvers.executors.process import Process, never

_own = threading.local()
"""The process of the running thread."""


def guarded(
    function: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    threads: int = 1,
    seconds: float | None = None,
    memory: float | None = None,
    grace: float = 0.0,
    stopped: Callable[[], bool] = never,
) -> Any:
    """`Process.run` in the process that belongs to the calling thread; it ends with the thread."""
    return own_process(threads).run(
        function, args, kwargs, seconds=seconds, memory=memory, grace=grace, stopped=stopped
    )


def own_process(threads: int) -> Process:
    """The process that belongs to the calling thread, for calls of so many threads."""
    process: Process | None = getattr(_own, "process", None)
    if process is None or process.threads != threads:
        if process is not None:
            process.close()
        process = _own.process = Process(threads)
    return process


class Processes(Workers):
    """Calls on processes of this machine, which are started when they are needed.

    Args:
        spec: what it was made from.
        workers: processes.
        threads: that each may take.
        memory: MiB that a call may hold.
    """

    def __init__(self, spec: str, workers: int, threads: int, memory: float | None) -> None:
        super().__init__(spec, workers, threads, memory)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="executor")
        self._stopped = threading.Event()
        self._processes: list[Process] = []

    def _send(self, call: Call) -> Future[Any]:
        return self._pool.submit(self._run, call)

    def _run(self, call: Call) -> Any:
        if self._stopped.is_set():
            raise CancelledError()
        process = own_process(self.threads)
        if process not in self._processes:
            self._processes.append(process)
        return call.given(
            process.run(
                call.function, call.args, call.kwargs, **call.limits._asdict(), stopped=self._stopped.is_set
            )
        )

    def interrupt(self) -> None:
        """Interrupt the calls at work, as Ctrl-C would; they may still answer."""
        for process in list(self._processes):
            process.interrupt()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls and end the processes; see `Workers.shutdown`."""
        if cancel_futures:
            self._stopped.set()
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)
        if wait:
            for process in self._processes:
                process.close()
