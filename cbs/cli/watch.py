"""The incumbent, bound and gap of a search, shown as they move."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

import solvers
from cbs.cli import output

if TYPE_CHECKING:
    from solvers.problem import Mask

EVERY = 1.0
"""Least seconds between two lines when standard error is not a terminal."""


class Watch:
    """A solver's callback that shows progress, and remembers the best mask and bound.

    On a terminal one line is kept up to date; elsewhere a line is written when something moved, at most
    one every `EVERY` seconds.
    """

    def __init__(self) -> None:
        self.mask: Mask | None = None
        self.bounds = solvers.Bounds()
        self._nodes = 0
        self._started = time.perf_counter()
        self._shown = (-EVERY, solvers.Bounds())
        self._console = output.progress()
        self._live: Live | None = None

    def __enter__(self) -> Watch:
        if output.is_live(self._console):
            self._live = Live(
                console=self._console, get_renderable=self._line, refresh_per_second=8, transient=True
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, progress: solvers.Progress) -> None:
        """Take in one report of the solver."""
        if progress.mask is not None and progress.bounds.upper <= self.bounds.upper:
            self.mask = progress.mask
        self.bounds, self._nodes = progress.bounds, progress.nodes
        seconds, bounds = self._shown
        if self._live is None and bounds != self.bounds and self.seconds >= seconds + EVERY:
            self._shown = (self.seconds, self.bounds)
            self._console.print(self._line())

    @property
    def seconds(self) -> float:
        """Wall time since the start."""
        return time.perf_counter() - self._started

    def _line(self) -> Text:
        return Text(
            f"{self.seconds:8.1f} s   incumbent {output.number(self.bounds.upper)}   "
            f"bound {output.number(self.bounds.lower)}   gap {output.percent(self.bounds.gap)}   "
            f"nodes {self._nodes:,}"
        )
