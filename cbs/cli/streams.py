"""Standard streams that may be closed, full, or read by nobody."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class Heedless:
    """A text stream that goes on when it can't be written: nobody's answer is lost for want of a log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what can be written."""
        try:
            self._stream.write(text)
        except (OSError, ValueError):  # ValueError: it is closed
            pass
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            pass


@contextmanager
def standard_streams() -> Iterator[None]:
    """Stand in for streams that are closed, and let what is told on standard error fail without harm."""
    before = sys.stdout, sys.stderr
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # or the next file that is opened takes its number, and gets what is printed
            os.open(os.devnull, os.O_RDWR)
    nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = nowhere
    sys.stderr = Heedless(sys.stderr or nowhere)
    try:
        yield
    finally:
        if before[0] is not None:
            sys.stdout = before[0]
        if before[1] is not None:
            sys.stderr = before[1]


def unheard(error: OSError) -> int:
    """Drop what is left to be printed, as standard output can't be written.

    Returns:
        The exit status of who is told by a broken pipe that nobody listens (as `cbs solvers | head` is);
        else 0, and a complaint is due.
    """
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass
    return 141 if isinstance(error, BrokenPipeError) else 0
