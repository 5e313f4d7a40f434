"""The process that runs calls, seen from inside: one call after another, until its parent is gone.

It leads a process group of its own, so that Ctrl-C at a terminal does not reach it. A *keeper*, forked
before anything is imported, waits for the parent's end of a pipe to close or for its own parent to die,
and then kills the group: nothing runs on after a `kill -9` of whoever asked for it.
"""

from __future__ import annotations

import json
import os
import pickle
import select
import signal
import socket
import sys
import time
from typing import Any

PARENT_DEATH_SIGNAL = 1
"""`PR_SET_PDEATHSIG` of `prctl`, Linux."""


def serve(end: int, life: int, parent: int, threads: int, pin: bool) -> None:
    """Run calls as they come in, each answered by a header and a body.

    Args:
        end: descriptor of the socket to the parent.
        life: descriptor that reads as ended when the parent is gone.
        parent: its process id.
        threads: that a call may take.
        pin: to cores of its own, if there are enough.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keeper = _keeper(life)
    _die_with(parent)
    from solvers.executors import channel, cores, message

    to_parent = channel.Channel(socket.socket(fileno=end))
    pinned = cores.take(threads) if pin else None
    try:
        to_parent.send(json.dumps((keeper, pinned)).encode())
        while True:
            _answer(to_parent, to_parent.receive(), message)
    except (EOFError, OSError):  # the parent is gone, or wants no more
        pass


def _answer(to_parent: Any, request: bytearray, message: Any) -> None:
    done, body, seconds, before, this = False, b"", 0.0, 0.0, os.getpid()
    _forget_peak()
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        function, args, kwargs = message.loads(request)
        del request
        to_parent.send(b"loaded")
        before, start = _cpu_seconds(), time.perf_counter()
        try:
            value = function(*args, **kwargs)
        finally:
            seconds = time.perf_counter() - start
            if os.getpid() != this:  # a fork that did not leave, whose answer nobody asked for
                os._exit(0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        body, done = message.dumps(value), True
    except BaseException as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interrupted = isinstance(error, KeyboardInterrupt)
        body = b"interrupted" if interrupted else message.exception_bytes(error)
        done = None if interrupted else False  # type: ignore[assignment]
    cpu = _cpu_seconds() - before if before else 0.0
    to_parent.send(pickle.dumps((done, seconds, cpu, _peak())))
    to_parent.send(body)


def _keeper(life: int) -> int:
    """Fork the keeper; its process id."""
    group = os.getpid()
    pid = os.fork()
    if pid:
        os.close(life)
        return pid
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.closerange(3, life)
        os.closerange(life + 1, 256)
        waiting = select.poll()
        waiting.register(life, select.POLLIN | select.POLLHUP)
        while not waiting.poll(1000) and os.getppid() == group:
            pass
        os.killpg(group, signal.SIGKILL)  # the keeper itself, too
    finally:
        os._exit(0)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends, where it can (Linux)."""
    if sys.platform.startswith("linux"):
        try:
            import ctypes

            ctypes.CDLL(None, use_errno=True).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        except (OSError, AttributeError):
            pass
    if os.getppid() != parent:
        os._exit(0)


def _cpu_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _forget_peak() -> None:
    """Start the kernel's count of this process's peak memory anew."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def _peak() -> float:
    """MiB of physical memory that this process held at most, since it began if the count can't be reset."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1 << 20 if sys.platform == "darwin" else 1024)
