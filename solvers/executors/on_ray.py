"""Ray: calls are spread by a Ray cluster, and run guarded inside its workers, as on one machine."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

from solvers.executors.base import Call, Limits
from solvers.executors.cluster import Cluster
from solvers.executors.failures import ProcessDied
from solvers.executors.message import dumps

AGAIN = 3
"""Times that a call is made again whose worker was lost."""
CONNECT = 8.0
"""Seconds within which an address must answer."""


class RayCluster(Cluster):
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

    def _send(self, call: Call) -> Future[Any]:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        there = self._remote.remote(dumps((call.function, call.args, call.kwargs)), self.threads, call.limits)
        self._under_way[future] = there
        future.add_done_callback(lambda done: done.cancelled() and self._ray.cancel(there, force=True))
        there.future().add_done_callback(lambda done: self._hand_over(done, future, call))
        return future

    def _hand_over(self, done: Future[Any], future: Future[Any], call: Call) -> None:
        """Give a call's future what came of it on the cluster."""
        try:
            failed, found = done.result()
        except BaseException as lost:
            told, found = " ".join(str(lost).split())[:160], None
            failed = (
                CancelledError() if self._closed else ProcessDied(f"the call's Ray worker was lost: {told}")
            )
        self._settle(call, future, found, failed)

    def _cancel(self, handles: Sequence[Any]) -> None:
        for there in handles:
            self._ray.cancel(there, force=True)

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


def in_worker(request: bytes, threads: int, limits: Limits) -> tuple[Exception | None, Any]:
    """What runs in a Ray worker: the call, in a process of its own; its exception, or what it gave."""
    from solvers.executors.processes import own_process

    try:
        return None, own_process(threads).send(request, **limits._asdict(), stopped=lambda: False)
    except Exception as error:
        return error, None
