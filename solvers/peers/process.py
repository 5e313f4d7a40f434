"""The process of a peer: rows go in, answers come out, and it is killed where it does not keep its limits.

One process serves row after row, and solve after solve, because a peer may take ten seconds to import and
compile.
"""

from __future__ import annotations

import atexit
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import Empty, Queue
from typing import Any

import numpy as np

from solvers.peers.environment import SCRIPT, interpreter

POLL = 0.02
"""Seconds between two looks at the limits while a peer works."""


class Overdue(Exception):
    """The process was killed: its time was over, or the search was stopped."""


class PeerFailed(ChildProcessError):
    """The peer raised an error, or its process died; in one line, which `cbs` prints as it is."""


class PeerProcess:
    """A running peer.

    Attributes:
        name: of the peer.
        version: of its package, once it is ready.
    """

    def __init__(self, name: str) -> None:
        """Start the process; `ready` waits until it has imported and compiled."""
        self.name = name
        self.version = ""
        self._dead = False
        self._process = subprocess.Popen(
            [str(interpreter(name)), "-I", str(SCRIPT), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
            env=_environment(),
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return not self._dead and self._process.poll() is None

    def ready(self, over: Callable[[], bool] = lambda: False) -> PeerProcess:
        """Wait until it has imported and compiled.

        Args:
            over: whether to give up.

        Raises:
            Overdue: if it was given up; the process is gone then.
            PeerFailed: if it does not start.
        """
        if not self.version:
            self.version = str(self._reply(None, over)["ready"])
        return self

    def ask(self, row: Mapping[str, Any], over: Callable[[], bool]) -> dict[str, Any]:
        """What it answers to a row, see `solvers.peers.answering`.

        Args:
            row: arrays and numbers.
            over: whether to give up.

        Raises:
            Overdue: if it was given up; the process is gone then.
            PeerFailed: if it raised an error, died, or answered what is no answer.
        """
        archive = io.BytesIO()
        np.savez(archive, **row)
        return self._checked(self._reply(archive.getvalue(), over), len(row["w"]))

    def close(self) -> None:
        """End it, whatever it does, and let go of its pipes."""
        self._dead = True
        with suppress(OSError):
            if sys.platform == "win32":
                self._process.kill()
            else:  # and what it started
                os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(OSError, ValueError):
            self._process.communicate()

    def _reply(self, archive: bytes | None, over: Callable[[], bool]) -> dict[str, Any]:
        news: Queue[bytes] = Queue()
        work = threading.Thread(target=self._converse, args=(archive, news), name="peer", daemon=True)
        work.start()
        try:
            while True:
                try:
                    line = news.get(timeout=POLL)
                    break
                except Empty:
                    if over():
                        raise Overdue from None
        except BaseException:
            self._dead = True
            self._process.kill()  # which ends the thread's reading
            work.join()
            self.close()
            raise
        hint = f"; make it anew by: cbs peers install --again {self.name}" if archive is None else ""
        answer = None
        if line.endswith(b"\n"):
            with suppress(ValueError):
                answer = json.loads(line)
        if not isinstance(answer, dict):
            with suppress(subprocess.TimeoutExpired):  # its output has ended, which it does last
                self._process.wait(timeout=1.0)
            status = self._process.poll()
            self.close()
            told = f" (status {status})" if status else ""
            raise PeerFailed(f"{self.name}'s process died{told}{hint}")
        if "error" in answer:
            raise PeerFailed(f"{self.name} failed: {answer['error']}{hint}")
        return answer

    def _converse(self, archive: bytes | None, news: Queue[bytes]) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = b""
        try:
            if archive is not None:
                self._process.stdin.write(len(archive).to_bytes(8, "big") + archive)
                self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (OSError, ValueError):  # it is gone
            pass
        finally:
            news.put(line)

    def _checked(self, answer: dict[str, Any], n: int) -> dict[str, Any]:
        """An answer whose numbers are numbers."""
        try:
            support = [int(i) for i in answer["support"]]
            bound = -math.inf if answer["bound"] is None else float(answer["bound"])
            if any(not 0 <= i < n for i in support) or math.isnan(bound):
                raise ValueError
            return {
                "support": support, "bound": bound, "done": bool(answer["done"]),
                "seconds": float(answer["seconds"]), "nodes": int(answer["nodes"]),
            }  # fmt: skip
        except (KeyError, TypeError, ValueError):
            raise PeerFailed(f"{self.name} answered what is no answer: {str(answer)[:100]}") from None


def _environment() -> dict[str, str]:
    """Environment variables of a peer: none of this interpreter's, and as many threads as others may use."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    if (threads := kept.get("OMP_NUM_THREADS")) is not None:
        kept.setdefault("NUMBA_NUM_THREADS", threads)
    return kept


_idle: dict[str, list[PeerProcess]] = {}
_lock = threading.Lock()


@contextmanager
def running(name: str) -> Iterator[Callable[..., PeerProcess]]:
    """A process of a peer for a while: an idle one, or a new one, kept for the next solve if it still lives.

    Gives a function that starts the process again if it was killed, and waits until it is ready; its argument
    says whether to give up.
    """
    held: list[PeerProcess] = []
    place = str(interpreter(name))  # whose folder may be named anew
    with _lock:
        if _idle.get(place):
            held.append(_idle[place].pop())

    def process(over: Callable[[], bool] = lambda: False) -> PeerProcess:
        if held and not held[0].alive:
            held.pop().close()
        if not held:
            held.append(PeerProcess(name))
        return held[0].ready(over)

    try:
        yield process
    except BaseException:
        while held:
            held.pop().close()
        raise
    finally:
        if held and held[0].alive and held[0].version:
            with _lock:
                _idle.setdefault(place, []).append(held[0])
        elif held:
            held[0].close()


def expiring(stopped: Callable[[], object], seconds: float | None) -> Callable[[], bool]:
    """Whether a search must be given up: it is stopped, or so many seconds have passed from now on."""
    deadline = math.inf if seconds is None else time.perf_counter() + seconds
    return lambda: bool(stopped()) or time.perf_counter() >= deadline


@atexit.register
def _close() -> None:
    for processes in _idle.values():
        while processes:
            processes.pop().close()


os.register_at_fork(after_in_child=_idle.clear)
