"""Where a comparison stands: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cbs.cli import output
from cbs.watch import Step

SETUP = ("measure", "compile", "curvature", "curves")
"""Stages before a search, which have a line of their own only after a silence."""
EVERY = 5.0
"""Seconds between two lines about one search when standard error is not a terminal."""


class Ticker:
    """A callback of `cbs.compare` that shows method, sparsity, layer, and the search's incumbent and bound.

    When a search is over, a line with its last incumbent, bound and gap stays.

    Args:
        total: number of results.
        budget: of the masks, which names them if it is a pattern.
    """

    def __init__(self, total: int, budget: str = "unstructured") -> None:
        self._pattern, self._done = budget if ":" in budget else None, 0
        self._console = output.progress()
        self._started = time.perf_counter()
        self._shown = 0.0
        self._result, self._search, self._last = "", "", ""
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(),
            TextColumn("{task.completed:.0f} of {task.total}"), TimeElapsedColumn(),
            console=self._console, transient=True, disable=not output.is_live(self._console),
        )  # fmt: skip
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Ticker:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settle("")
        self._bar.stop()

    def __call__(self, step: Step) -> None:
        """Take in one step."""
        behind = step.stage == "certify"  # a sparsity's bounds come after all of its methods
        result = f"{step.method} at {self._pattern or f'{100 * step.asked:g}%'}"
        part = f", stage {step.part} of {step.parts}" if step.parts > 1 else ""
        search = f"{result}{part}: {step.stage}"
        if step.layer is not None:
            search += f" layer {step.layer} ({step.index + 1} of {step.count})"
        self._settle(search)
        text = search
        if step.stage == "reselect":
            text += f", round {step.index}"
        if step.stage == "refit" and step.count:
            text += f", step {step.index} of at most {step.count}"
        if step.stage == "finetune":
            text += f", epoch {step.index} of {step.count}"
        if step.progress is not None:
            bounds = step.progress.bounds
            text += f", incumbent {output.number(bounds.upper)}, bound {output.number(bounds.lower)}"
            text += f", gap {output.percent(bounds.gap)}"
            self._last = text
        if step.stage == "evaluate" and step.part == step.parts:
            self._done += 1
        self._bar.update(self._task, description=text, completed=self._done)
        setup = step.stage in SETUP
        began = result != self._result and not behind and not setup  # most bounds are known by then
        late = self._seconds >= self._shown + EVERY
        if self._bar.disable and (began or (late and (self._last or setup))):
            self._result = self._result if setup else result
            self._print(text)

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._started

    def _settle(self, search: str) -> None:
        """Let the last line of the search before stay, if this is another one."""
        if search != self._search:
            if self._last:
                self._print(self._last)
            self._search, self._last = search, ""

    def _print(self, text: str) -> None:
        self._shown = self._seconds
        self._bar.console.print(f"{self._shown:8.1f} s   {text}")
