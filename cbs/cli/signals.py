"""SIGTERM and SIGHUP, which stop a command as Ctrl-C does: politely at first, with the best found kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = ("SIGTERM", "SIGHUP")
"""What schedulers, containers and terminals that close send; those that the process ignores stay ignored."""


@contextmanager
def stopping() -> Iterator[list[int]]:
    """Pass the signals of `STOPPING` on to whoever handles Ctrl-C at the time; gives those that came.

    A Ctrl-C that nobody handles politely is among them: what fails afterwards, as a module does of which half
    was imported, fails because of it.
    """
    came: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    def handler(number: int, frame: FrameType | None) -> None:
        came.append(number)
        ctrl_c = signal.getsignal(signal.SIGINT)
        if not callable(ctrl_c):
            raise KeyboardInterrupt
        ctrl_c(signal.SIGINT, frame)

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    numbers = [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]
    taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    for number in taken:
        signal.signal(number, handler)
    try:
        yield came
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
        if usual is signal.default_int_handler:
            signal.signal(signal.SIGINT, usual)
