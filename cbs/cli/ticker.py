"""Where a comparison stands: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cbs.cli import output
from cbs.watch import Step

EVERY = 5.0
"""Seconds between two lines about one result when standard error is not a terminal."""


class Ticker:
    """A callback of `cbs.compare` that shows method, sparsity, layer, and the search's gap.

    Args:
        labels: of the sparsities, in the order they are worked on.
        methods: how many methods there are.
    """

    def __init__(self, labels: Sequence[str], methods: int) -> None:
        self._labels, self._methods, self._done = labels, methods, 0
        self._console = output.progress()
        self._started = time.perf_counter()
        self._last = ("", -EVERY)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f} of {task.total}"),
            TimeElapsedColumn(), console=self._console, transient=True,
            disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=len(labels) * methods)

    def __enter__(self) -> Ticker:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, step: Step) -> None:
        """Take in one step."""
        behind = step.stage == "certify"  # a sparsity's bounds come after all of its methods
        label = self._labels[min((self._done - behind) // self._methods, len(self._labels) - 1)]
        result = f"{step.method} at {label}"
        text = f"{result}: {step.stage}"
        if step.layer is not None:
            text += f" layer {step.layer} ({step.index + 1} of {step.count})"
        if step.progress is not None and math.isfinite(step.progress.bounds.gap):
            text += f", gap {output.percent(step.progress.bounds.gap)}"
        if step.stage == "evaluate":
            self._done += 1
        self._bar.update(self._task, description=text, completed=self._done)
        seconds = time.perf_counter() - self._started
        if step.stage == "certify" and step.progress is None:
            return  # most bounds are known by then
        if self._bar.disable and (result != self._last[0] or seconds >= self._last[1] + EVERY):
            self._last = (result, seconds)
            self._console.print(f"{seconds:8.1f} s   {text}")
