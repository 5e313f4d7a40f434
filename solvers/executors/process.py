"""The process that runs calls, seen from outside: started, watched, held to limits, killed, replaced.

Started anew (spawned), not forked, with its threads set before anything is imported; kept between calls, so
that imports and compiled code are paid for once.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from platform import node
from typing import Any

import psutil

from solvers.executors.channel import Channel
from solvers.executors.failures import (
    Ended,
    MemoryLimitExceeded,
    ProcessDied,
    TimeLimitExceeded,
    manner_of_death,
)
from solvers.executors.message import Measured, dumps, loads
from solvers.runtime.parallel import THREADS
from solvers.runtime.plain import SWITCH

POOLS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS", THREADS,
)  # fmt: skip
"""Environment variables that thread pools read when they are made."""
LOADING = 300.0
"""Seconds that a process has to start and to import what a function needs, before its own limit counts."""
GLANCE = 0.05
"""Seconds between two looks at a call's time and memory."""
TREE = 10
"""Looks at the process itself for one at all that it started, which takes some milliseconds."""
KEPT = 1024.0
"""MiB that a process may hold after a call to be kept for the next, or half of the call's limit."""
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from solvers.executors.child import serve; serve(*map(int, sys.argv[2:]))"
)


def never() -> bool:
    """A call that nobody takes back."""
    return False


class Process:
    """A child process for calls one after another, started at the first one; for one thread at a time.

    The kernel kills it when the thread that started it ends.

    Args:
        threads: of BLAS, OpenMP, numba, PyTorch and the solvers' own in a call.
        pin: give it cores of its own where there are enough.
    """

    def __init__(self, threads: int = 1, pin: bool = True) -> None:
        self.threads = threads
        self.pin = pin
        self.pid: int | None = None
        self.cores: list[int] | None = None
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: psutil.Process | None = None
        self._keeper: int | None = None
        self._interrupted = self._working = False
        self._end: Callable[[], Any] = lambda: None

    def run(
        self,
        function: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        seconds: float | None = None,
        memory: float | None = None,
        grace: float = 0.0,
        stopped: Callable[[], bool] = never,
    ) -> Measured[Any]:
        """Call a function in the process, and wait for it.

        Args:
            function: what to call.
            args: its positional arguments.
            kwargs: its keyword arguments.
            seconds: wall time after which it is ended; starting and importing are not counted.
            memory: MiB of physical memory, of the process and all that it started, past which it is ended.
            grace: seconds that it has, past `seconds`, to give an answer after being interrupted (SIGINT) as
                by Ctrl-C; 0 kills it at once.
            stopped: asked a few times a second; True ends the call.

        Raises:
            TimeLimitExceeded: past `seconds` (and `grace`).
            MemoryLimitExceeded: past `memory`.
            ProcessDied: the process was killed from elsewhere, crashed or left.
            CancelledError: `stopped`.
            Exception: whatever the function raised, with its traceback as a note.
        """
        return self.send(
            dumps((function, tuple(args), dict(kwargs or {}))),
            seconds=seconds, memory=memory, grace=grace, stopped=stopped,
        )  # fmt: skip

    def send(
        self, request: bytes, *, seconds: float | None, memory: float | None, grace: float,
        stopped: Callable[[], bool],
    ) -> Measured[Any]:  # fmt: skip
        """`run` of what is pickled already: function, arguments and keywords."""
        watch = Watch(seconds, memory, grace)
        try:
            channel = self._channel or self._start(watch, stopped)
            channel.send(request)
            del request
            self._wait(channel, watch, stopped)
            header = channel.receive()
            if header == b"loaded":
                watch.loaded(self._seen)
                self._working = True
                self._wait(channel, watch, stopped)
                header = channel.receive()
            done, took, cpu, peak = pickle.loads(header)
            body = channel.receive()
        except BaseException as error:  # a limit, a stop, or Ctrl-C here
            if isinstance(error, EOFError | OSError) and not isinstance(error, Ended):
                raise self._died(watch) from None
            self.close()
            raise
        finally:
            self._working = False
        peak = max(peak, watch.memory)
        interrupted = self._interrupted
        disturbed = watch.asked or interrupted or done is None  # perhaps in the middle of an import
        if disturbed or self._holds() > max(KEPT, (memory or 0.0) / 2):
            self.close()
        if done:
            return Measured(loads(body), took, cpu, peak, node())
        if done is None:
            if watch.asked:
                raise watch.ended(TimeLimitExceeded)
            if not interrupted:
                raise watch.ended(ProcessDied, "the call was interrupted, by itself or by another program")
            raise CancelledError()
        raise loads(body)

    def interrupt(self) -> None:
        """Interrupt the call at work, if any, as Ctrl-C would; it may still answer."""
        if self.pid is not None and self._working:
            self._interrupted = True
            try:
                os.kill(self.pid, signal.SIGINT)
            except ProcessLookupError:
                pass

    def close(self) -> None:
        """Kill the process and what it started."""
        self._end()
        self.pid = self.cores = self._channel = self._process = self._seen = self._keeper = None
        self._interrupted = False

    def _start(self, watch: Watch, stopped: Callable[[], bool]) -> Channel:
        if os.name != "posix":
            raise ValueError("executor: guarded processes need Linux or macOS")
        ours, theirs = socket.socketpair()
        read, write = os.pipe()
        environment = {**os.environ, **dict.fromkeys(POOLS, str(self.threads)), SWITCH: "0"}
        with theirs:
            paths = json.dumps([path or os.getcwd() for path in sys.path])
            told = map(str, (theirs.fileno(), read, os.getpid(), self.threads, int(self.pin)))
            try:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-c", START, paths, *told], env=environment,
                    start_new_session=True, stdin=subprocess.DEVNULL, stdout=_standard_error(),
                    pass_fds=(theirs.fileno(), read),
                )  # fmt: skip
            except OSError as error:
                ours.close()
                os.close(write)
                raise ProcessDied(f"no process for a call could be started: {error}") from None
            finally:
                os.close(read)
        channel = Channel(ours)
        self._end = weakref.finalize(self, _end, process, channel, write, os.getpid())
        self._process, self.pid, self._channel = process, process.pid, channel
        self._seen = psutil.Process(process.pid)
        self._wait(channel, watch, stopped)
        self._keeper, self.cores = json.loads(channel.receive())
        return channel

    def _wait(self, channel: Channel, watch: Watch, stopped: Callable[[], bool]) -> None:
        """Until the process says something, dies, or has to be ended."""
        while not channel.ready(GLANCE):
            if stopped():
                raise CancelledError()
            if self._seen is not None:
                watch.look(self._seen, self._keeper)
            watch.judge()

    def _holds(self) -> float:
        """MiB of physical memory."""
        try:
            return 0.0 if self._seen is None else float(self._seen.memory_info().rss) / (1 << 20)
        except psutil.Error:
            return 0.0

    def _died(self, watch: Watch) -> ProcessDied:
        try:
            status = None if self._process is None else self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            status = None
        self.close()
        found = watch.ended(ProcessDied, f"the process that ran the call {manner_of_death(status)}")
        assert isinstance(found, ProcessDied)
        return found


class Watch:
    """Time and memory of one call, against its limits."""

    def __init__(self, seconds: float | None, memory: float | None, grace: float) -> None:
        self.seconds, self.limit, self.grace = seconds, memory, grace
        self.start = time.perf_counter()
        self.deadline = self.start + LOADING
        self.loading, self.asked = True, False
        self.memory = self.cpu = self.spent = 0.0
        self.looks = 0
        self.pid: int | None = None
        self.others: list[psutil.Process] = []

    def loaded(self, process: psutil.Process | None) -> None:
        """The function is there and begins."""
        if process is not None:
            self.spent = _spent(process)
        self.loading, self.start = False, time.perf_counter()
        self.deadline = float("inf") if self.seconds is None else self.start + self.seconds

    def look(self, process: psutil.Process, keeper: int | None = None) -> None:
        """See what it holds, and now and then all that it started."""
        try:
            self.pid, tree = process.pid, process.memory_info().rss / (1 << 20)
            self.cpu = _spent(process) - self.spent
            if self.looks % TREE == 0:
                self.others = [each for each in process.children(recursive=True) if each.pid != keeper]
            for each in self.others:
                try:
                    tree += each.memory_info().rss / (1 << 20)
                except psutil.Error:
                    pass
        except psutil.Error:  # gone meanwhile: the channel tells
            return
        self.looks += 1
        self.memory = max(self.memory, tree)

    def judge(self) -> None:
        """Raise what ends the call; past its time it is asked first, where it has a grace."""
        if self.limit is not None and self.memory > self.limit:
            raise self.ended(MemoryLimitExceeded)
        if time.perf_counter() <= self.deadline:
            return
        if self.grace > 0 and not self.asked and not self.loading and self.pid:
            self.asked = True
            self.deadline += self.grace
            os.kill(self.pid, signal.SIGINT)
            return
        raise self.ended(TimeLimitExceeded)

    def ended(self, how: type[Ended], told: str | None = None) -> Ended:
        """The exception, with what the call took."""
        if told is None and how is MemoryLimitExceeded:
            told = (
                f"the call's processes held {self.memory:.0f} MiB, more than its limit of {self.limit:g} MiB"
            )
        elif told is None and self.loading:
            told = f"the function was not imported within {LOADING:g} s"
        elif told is None:
            told = f"the call ran longer than its limit of {self.seconds:g} s"
        found = how(told)
        found.seconds = time.perf_counter() - self.start
        found.cpu_seconds, found.memory = self.cpu, self.memory
        return found


def _spent(process: psutil.Process) -> float:
    """Processor time of a process; 0 if it is gone."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _standard_error() -> int:
    """Where a call's standard output goes: not among what this process prints for other programs."""
    try:
        return sys.__stderr__.fileno() if sys.__stderr__ is not None else subprocess.DEVNULL
    except (OSError, ValueError):
        return subprocess.DEVNULL


def _end(process: subprocess.Popen[bytes], channel: Channel, life: int, owner: int) -> None:
    """Kill a process, its group and what else it started; nothing in a fork of the owner."""
    if os.getpid() != owner:
        return
    try:
        others = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    except psutil.Error:
        others = []
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    for each in others:
        try:
            each.kill()
        except psutil.Error:
            pass
    channel.close()
    os.close(life)
    process.wait()
