"""How far a long work is, and how long what is left may take: one line, kept up to date on a terminal."""

from __future__ import annotations

import time

from rich.live import Live
from rich.text import Text

from cbs.cli import output

EVERY = 1.0
"""Least seconds between two lines when standard error is not a terminal."""


class Clock:
    """A line on standard error: how far the work is, and how long what is left may take.

    On a terminal it is kept up to date; elsewhere a line is written at most every `EVERY` seconds.
    """

    def __init__(self, what: str) -> None:
        self._what, self._started, self._shown = what, time.perf_counter(), -EVERY
        self._console = output.progress()
        self._live: Live | None = None
        self._text = ""

    def __enter__(self) -> Clock:
        if output.is_live(self._console):
            self._live = Live(console=self._console, get_renderable=lambda: Text(self._text), transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, text: str, index: int, count: int) -> None:
        """A piece of work, one of `count`, is done."""
        spent = time.perf_counter() - self._started
        left = spent / (index + 1) * (count - index - 1)
        self._text = f"{spent:8.1f} s   {self._what} {index + 1} of {count}   {left:6.0f} s left   {text}"
        if self._live is None and (spent >= self._shown + EVERY or index + 1 == count):
            self._shown = spent
            self._console.print(self._text)
