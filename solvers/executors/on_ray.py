"""Ray: calls are spread by a Ray cluster, and run guarded inside its workers, as on one machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from solvers.executors.base import Workers
from solvers.executors.failures import ProcessDied
from solvers.executors.message import Measured, dumps

AGAIN = 3
"""Times that a call is made again whose worker was lost."""
CONNECT = 8.0
"""Seconds within which an address must answer."""


class RayCluster(Workers):
    """Calls on a Ray cluster: the one that this machine belongs to, one at an address, or one of its own.

    Args:
        spec: what it was made from.
        rest: of the setting, after the colon: nothing, `HOST:PORT` or `//HOST:PORT`.
        threads: that a call may take; so many processors it is given.
        memory: MiB that a call may hold.

    Raises:
        ValueError: the cluster can't be reached.
    """

    def __init__(self, spec: str, rest: str, threads: int, memory: float | None) -> None:
        import ray

        address = f"ray:{rest}" if rest.startswith("//") else rest or None
        if address is not None:
            _reach(spec, address.removeprefix("ray://"))
        self._started = not ray.is_initialized()
        try:
            if self._started:
                ray.init(address=address, log_to_driver=False, logging_level="error")
        except Exception as error:
            told = " ".join(str(error).split())[:160]
            raise ValueError(f"executor {spec!r}: no Ray cluster answers there ({told})") from None
        count = int(ray.cluster_resources().get("CPU", 1)) // threads
        if count < 1:
            self._leave()
            raise ValueError(f"executor {spec!r}: the cluster has no {threads} processors for a call")
        super().__init__(spec, count, threads, memory)
        self._ray = ray
        self._remote = ray.remote(num_cpus=threads, max_retries=AGAIN)(in_worker)
        self._under_way: dict[Future[Any], Any] = {}
        self._idle = threading.Condition()
        self._closed = False

    def _send(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        limits: tuple[float | None, float | None, float],
        key: str | None,
        *,
        bare: bool,
    ) -> Future[Any]:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        there = self._remote.remote(dumps((function, args, kwargs)), self.threads, limits)
        self._under_way[future] = there
        future.add_done_callback(lambda done: done.cancelled() and self._ray.cancel(there, force=True))
        there.future().add_done_callback(lambda done: self._hand_over(done, future, bare))
        return future

    def _hand_over(self, done: Future[Any], future: Future[Any], bare: bool) -> None:
        """Give a call's future what came of it on the cluster."""
        try:
            failed, found = done.result()
        except BaseException as lost:
            told, found = " ".join(str(lost).split())[:160], None
            failed = (
                CancelledError() if self._closed else ProcessDied(f"the call's Ray worker was lost: {told}")
            )
        with self._idle:
            self._under_way.pop(future, None)
            self._idle.notify_all()
        if not future.set_running_or_notify_cancel():
            return
        if failed is not None:
            future.set_exception(failed)
        else:
            measured: Measured[Any] = found
            future.set_result(measured.value if bare else measured)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls and leave the cluster; see `Workers.shutdown`."""
        if self._closed:
            return
        if cancel_futures:
            self._closed = True
            for there in list(self._under_way.values()):
                self._ray.cancel(there, force=True)
        with self._idle:
            self._idle.wait_for(lambda: not self._under_way, None if wait and not cancel_futures else 5.0)
        self._closed = True
        self._leave()

    def _leave(self) -> None:
        import ray

        if self._started:
            ray.shutdown()


def _reach(spec: str, address: str) -> None:
    """Raise ValueError, in one line, unless something answers at an address: Ray itself waits for minutes."""
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not (host and port.isdecimal()):
        raise ValueError(f"executor {spec!r}: write the address with its port, such as ray://host:10001")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"executor {spec!r}: no Ray cluster answers there ({error})") from None


def in_worker(
    request: bytes, threads: int, limits: tuple[float | None, float | None, float]
) -> tuple[Exception | None, Any]:
    """What runs in a Ray worker: the call, in a process of its own; its exception, or what it gave."""
    from solvers.executors.processes import own_process

    seconds, memory, grace = limits
    try:
        return None, own_process(threads).send(
            request, seconds=seconds, memory=memory, grace=grace, stopped=lambda: False
        )
    except Exception as error:
        return error, None
