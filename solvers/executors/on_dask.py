"""A Dask cluster: calls are spread by its scheduler, and run guarded inside its workers.

A worker's thread starts a process for its calls, as on one machine, so limits hold there just the same, and
the process ends with the worker. A call whose worker is lost is made elsewhere, as often as the scheduler
allows (`distributed.scheduler.allowed-failures`, 3). What becomes of a call whose driver is gone: the
scheduler forgets it, its worker sees that, and kills it.
"""

from __future__ import annotations

import logging
import math
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from solvers.executors.base import Call, Limits
from solvers.executors.cluster import Cluster
from solvers.executors.failures import ProcessDied
from solvers.executors.message import Measured, dumps
from solvers.runtime.caches import PACKAGE

CONNECT = 8.0
"""Seconds within which a scheduler must answer."""
LOOK = 2.0
"""Seconds between two looks at how many workers there are."""
OVER = ("closing", "closed")
"""States of a client that has lost its scheduler for good."""
PREFIX = "solvers-call-"
"""What the keys of this package's calls begin with on a cluster."""


def connect(spec: str, address: str, threads: int, memory: float | None) -> DaskCluster:
    """The cluster of a scheduler's address.

    Raises:
        ValueError: no scheduler answers, or its workers have another Python or release: in one line.
    """
    if "://" not in address:
        raise ValueError(f"executor {spec!r}: write the scheduler's address, such as dask:tcp://host:8786")
    quiet = logging.getLogger("distributed")
    before = quiet.level
    quiet.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = import_module("distributed").Client(
                address, timeout=CONNECT, set_as_default=False, name="solvers"
            )
    except Exception as error:
        told = " ".join(str(error).split())[:120]
        raise ValueError(
            f"executor {spec!r}: no Dask scheduler answers at {address} within {CONNECT:g} s ({told})"
        ) from None
    finally:
        quiet.setLevel(before)
    try:
        return DaskCluster(spec, client, threads, memory)
    except BaseException:
        client.close()
        raise


class DaskCluster(Cluster):
    """Calls on the workers of a `distributed.Client`.

    Args:
        spec: what it was made from.
        client: connected; closed with the executor.
        threads: that a call may take.
        memory: MiB that a call may hold.
        close: called after the client is closed, such as to end a cluster that was made for this.

    Raises:
        ValueError: workers of another Python or release.
    """

    def __init__(
        self,
        spec: str,
        client: Any,
        threads: int = 1,
        memory: float | None = None,
        close: Callable[[], Any] | None = None,
    ) -> None:
        check_alike(spec, client)
        self._client, self._least, self._count, self._counted = client, 1, 0, -math.inf
        super().__init__(spec, 1, threads, memory)
        self._close = close

    @property
    def workers(self) -> int:
        """Threads of the cluster's workers, as they come and go; of a Slurm queue those that are to come."""
        if time.monotonic() > self._counted + LOOK and not self._closed:
            with suppress(Exception):  # its scheduler is gone; calls say so
                self._count, self._counted = sum(self._client.nthreads().values()), time.monotonic()
        return max(self._least, self._count)

    @workers.setter
    def workers(self, least: int) -> None:
        self._least = least

    def _send(self, call: Call) -> Future[Any]:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        request = dumps((call.function, call.args, call.kwargs))
        try:
            with warnings.catch_warnings():  # a large problem is what it is
                warnings.filterwarnings("ignore", message="Sending large graph")
                there = self._client.submit(
                    in_worker, request, self.threads, call.limits,
                    key=PREFIX + (call.key or uuid.uuid4().hex), pure=False,
                )  # fmt: skip
        except Exception:
            if self._client.status not in OVER:
                raise
        if self._client.status in OVER:  # what it was given since is never answered
            raise BrokenExecutor(f"executor {self.spec!r}: its scheduler is gone")
        self._under_way[future] = there
        future.add_done_callback(lambda done: done.cancelled() and self._client.cancel([there]))
        there.add_done_callback(lambda done: self._hand_over(done, future, call))
        return future

    def _hand_over(self, there: Any, future: Future[Any], call: Call) -> None:
        """Give a call's future what came of it on the cluster."""
        found: Measured[Any] | None = None
        failed: BaseException | None = None
        try:
            found = there.result()
        except BaseException as error:
            failed = self._as_ours(there, error)
        there.release()
        with suppress(Exception):  # the key is free before anyone can ask for it again
            self._client.sync(_nothing)
        self._settle(call, future, found, failed)

    def _as_ours(self, there: Any, error: BaseException) -> BaseException:
        """What a call's end on the cluster is in this package's terms."""
        if type(error).__name__ == "KilledWorker":
            return ProcessDied(f"the workers that ran the call were lost: {' '.join(str(error).split())}")
        if there.status not in ("cancelled", "lost"):
            return error
        return CancelledError() if self._closed else ProcessDied("the cluster let go of the call")

    def _cancel(self, handles: Sequence[Any]) -> None:
        with suppress(Exception):  # its scheduler is gone, and the calls with it
            self._client.cancel(handles, force=False)

    def _leave(self) -> None:
        self._client.close()
        if self._close is not None:
            self._close()


async def _nothing() -> None:
    """Come after all that the client's loop was given before."""


def in_worker(request: bytes, threads: int, limits: Limits) -> Any:
    """What runs on a thread of a Dask worker: the call, in a process of its own.

    A call that the scheduler has taken back is killed; should it be wanted again by then, it is made anew.
    """
    from solvers.executors.processes import own_process

    distributed = import_module("distributed")
    worker, key = distributed.get_worker(), import_module("distributed.worker").thread_state.key

    def stopped() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state in ("cancelled", "released", "forgotten")

    try:
        return own_process(threads).send(request, **limits._asdict(), stopped=stopped)
    except CancelledError:
        raise distributed.Reschedule() from None


def check_alike(spec: str, client: Any) -> None:
    """Raise ValueError, in one line, unless all workers have this Python and this release of the package."""
    ours = facts()
    try:
        theirs = client.run(facts)
    except Exception as error:
        raise ValueError(
            f"executor {spec!r}: its workers can't run this package: {type(error).__name__}: {error}"
        ) from None
    for worker, found in theirs.items():
        if found != ours:
            raise ValueError(
                f"executor {spec!r}: worker {worker} has {' and '.join(found)}, here are "
                f"{' and '.join(ours)}; start it with the same"
            )


def facts() -> tuple[str, str]:
    """The Python and the release of the package that run here."""
    try:
        release = version(PACKAGE)
    except PackageNotFoundError:
        release = "(not installed)"
    return f"Python {sys.version_info.major}.{sys.version_info.minor}", f"{PACKAGE} {release}"
