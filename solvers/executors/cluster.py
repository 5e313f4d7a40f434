"""What executors of other machines share: calls that are under way there, and how they end here."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from solvers.executors.base import Call, Workers
from solvers.executors.message import Measured


class Cluster(Workers):
    """Calls on a cluster, each known there by a handle of its own.

    A subclass keeps `_under_way`, the handle of every future that is not done, and ends calls by `_settle`.
    """

    def __init__(self, spec: str, workers: int, threads: int, memory: float | None) -> None:
        self._closed = False
        self._under_way: dict[Future[Any], Any] = {}
        self._idle = threading.Condition()
        super().__init__(spec, workers, threads, memory)

    def _settle(
        self, call: Call, future: Future[Any], measured: Measured[Any] | None, failed: BaseException | None
    ) -> None:
        """Give a call's future what came of it: what was measured, or why it failed."""
        with self._idle:
            self._under_way.pop(future, None)
            self._idle.notify_all()
        if not future.set_running_or_notify_cancel():
            return
        if failed is not None:
            future.set_exception(failed)
        else:
            assert measured is not None
            future.set_result(call.given(measured))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls and leave the cluster; see `Workers.shutdown`."""
        if self._closed:
            return
        if cancel_futures:
            self._closed = True
            self._cancel(list(self._under_way.values()))
        with self._idle:
            self._idle.wait_for(lambda: not self._under_way, None if wait and not cancel_futures else 5.0)
        self._closed = True
        self._leave()

    @abstractmethod
    def _cancel(self, handles: Sequence[Any]) -> None:
        """End calls that are under way."""

    @abstractmethod
    def _leave(self) -> None:
        """Let go of the cluster."""
