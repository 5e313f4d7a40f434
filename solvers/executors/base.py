"""What all executors are: `concurrent.futures.Executor`, and `call` with limits, keys and measurements."""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

from solvers.executors.message import Measured


class Limits(NamedTuple):
    """What a call is held to from outside: wall time, MiB, and seconds to answer an interruption."""

    seconds: float | None = None
    memory: float | None = None
    grace: float = 0.0


@dataclass(frozen=True)
class Call:
    """A call to be made by a worker.

    Attributes:
        function: what to call.
        args: its arguments.
        kwargs: those by name.
        limits: that it is held to.
        key: of which no two are made at once; None for none.
        bare: whether its future is to give the value alone, without what it took.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    limits: Limits
    key: str | None = None
    bare: bool = False

    def given(self, measured: Measured[Any]) -> Any:
        """What its future gives of what was measured."""
        return measured.value if self.bare else measured


class Workers(Executor):
    """Work on processes of this machine or of a cluster.

    `submit(function, *args, **kwargs)` is that of every executor. `call` has limits besides, and measures.
    Leaving a `with` block waits for what was submitted; leaving it by an exception, Ctrl-C among them,
    ends it.

    Attributes:
        spec: what it was made from.
        workers: calls that run at once, as far as known; more may join a cluster.
        threads: that each may take.
        memory: MiB that a call may hold where it does not say itself; None for no limit.
    """

    def __init__(self, spec: str, workers: int, threads: int, memory: float | None) -> None:
        self.spec = spec
        self.workers = workers
        self.threads = threads
        self.memory = memory
        self._lock = threading.Lock()
        self._keyed: dict[str, Future[Measured[Any]]] = {}

    def __repr__(self) -> str:
        limit = "" if self.memory is None else f", {self.memory:g} MiB a call"
        return f"<{self.spec}: {self.workers} at once, {self.threads} threads each{limit}>"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, there: TracebackType | None
    ) -> None:
        self.shutdown(wait=True, cancel_futures=kind is not None)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `function(*args, **kwargs)` on a worker; its result is the function's."""
        return self._send(Call(function, args, kwargs, Limits(memory=self.memory), bare=True))

    def call(
        self,
        function: Callable[..., Any],
        /,
        *args: Any,
        seconds: float | None = None,
        memory: float | None = None,
        key: str | None = None,
        grace: float = 0.0,
    ) -> Future[Measured[Any]]:
        """Call `function(*args)` on a worker, held to limits from outside.

        Args:
            function: what to call; one that other processes can't import is sent as code.
            args: its arguments.
            seconds: wall time after which it is killed, whatever it does; imports are not counted.
            memory: MiB of physical memory that its process, with all it imported and started, may hold; None
                for the executor's own limit.
            key: a call of the same key that is under way is not made again: its future is joined. On a Dask
                cluster this holds between drivers, too.
            grace: seconds that it has after `seconds` to answer an interruption, as `solve` does with its
                incumbent; 0 kills it at once.

        Returns:
            A future of `Measured`: value, seconds, cpu_seconds, memory, host. It raises what the function
            raises, or `TimeLimitExceeded`, `MemoryLimitExceeded`, `ProcessDied`, and `CancelledError` after
            `shutdown(cancel_futures=True)`.

        Raises:
            ValueError: a limit that is none.
        """
        memory = self.memory if memory is None else memory
        for name, limit, least in (("seconds", seconds, 0.0), ("memory", memory, 0.0)):
            if limit is not None and not (_is_number(limit) and limit > least):
                raise ValueError(f"{name} must be a positive number or None, got {limit!r}")
        if not (_is_number(grace) and grace >= 0):
            raise ValueError(f"grace must be a number from 0, in seconds, got {grace!r}")
        if key is not None and not (isinstance(key, str) and key):
            raise ValueError(f"key must be a text, got {key!r}")
        asked = Call(function, args, {}, Limits(seconds, memory, grace), key)
        if key is None:
            return self._send(asked)
        with self._lock:
            if (under_way := self._keyed.get(key)) is not None:
                return under_way
            future = self._keyed[key] = self._send(asked)
        future.add_done_callback(lambda _: self._forget(key, future))
        return future

    def _forget(self, key: str, future: Future[Measured[Any]]) -> None:
        with self._lock:
            if self._keyed.get(key) is future:
                del self._keyed[key]

    @abstractmethod
    def _send(self, call: Call) -> Future[Any]:
        """Have a call made: a future of its value if it is bare, else of a `Measured`."""

    @abstractmethod
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; free what they used.

        Args:
            wait: until all are done.
            cancel_futures: calls that wait are cancelled, and those under way are ended.
        """


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
