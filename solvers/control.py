"""The running conversation between a solver and whoever asked: limits, progress, interruption."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from numbers import Real
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from solvers.solution import Bounds, Progress, Status

if TYPE_CHECKING:
    from solvers.problem import Mask
    from solvers.runtime.checkpoint import Checkpoint

SHOWN = 1e-7
"""Relative rounding of an incumbent that does not show in the digits it is told with."""
Callback = Callable[[Progress], Any]
SEARCH = 0.8
"""Of a time limit, what a search may take whose certificate is to be written in the rest."""
HEARTBEAT = 1.0
"""Seconds after which a callback that heard nothing new is told the same again."""


@dataclass
class Control:
    """Limits and progress of one solve. Solvers poll `stopped()` and `report()` what they find.

    Values and bounds that solvers report are those of the reduced problem they were given; `offset`
    is what the reduction took out, and `margin` what rounding in it can move a value by.

    Attributes:
        gap: relative gap asked for.
        seed: for every random choice.
        device: where batched array work runs, a torch device name.
        deadline: `time.perf_counter()` at which to stop, or None.
        callback: called with every `Progress`; a true answer stops the search.
        warm_start: a mask of the reduced problem to start from, or None.
        offset: constant between the reduced and the original problem.
        margin: by which bounds of the reduced problem are lowered to hold for the original.
        noise: what rounding in a search can move a value of the reduced problem by.
        floor: a value that no mask of the original problem goes below, whatever a search has proven.
        lift: turns a mask of the reduced problem into one of the original.
        certify: whether `Outcome.proof` is asked for.
        checkpoint: the file to go on from and to keep the search in, or None.
        executor: whose workers rows are searched on; None for threads of this process.
        given_up: polled, too; once true, the search ends as by its time limit.
    """

    gap: float = 1e-4
    seed: int = 0
    device: str = "cpu"
    deadline: float | None = None
    callback: Callback | None = None
    warm_start: Mask | None = None
    offset: float = 0.0
    margin: float = 0.0
    noise: float = 0.0
    floor: float = -math.inf
    lift: Callable[[Mask], Mask] = lambda mask: mask
    certify: bool = False
    checkpoint: Checkpoint | None = None
    executor: Executor | None = None
    given_up: Callable[[], bool] = lambda: False
    started: float = field(default_factory=time.perf_counter)
    trace: list[Progress] = field(default_factory=list)
    interrupted: bool = False
    heard: float = field(default_factory=time.perf_counter)
    thread: int = field(default_factory=threading.get_ident)

    @property
    def seconds(self) -> float:
        """Wall time since the start."""
        return time.perf_counter() - self.started

    @property
    def remaining(self) -> float | None:
        """Seconds left, not negative; None without a limit."""
        return None if self.deadline is None else max(0.0, self.deadline - time.perf_counter())

    def stopped(self) -> Status | None:
        """Why the search must stop now, or None to go on; the callback hears from time to time."""
        self._beat()
        if self.interrupted:
            return Status.INTERRUPTED
        if self.deadline is not None and time.perf_counter() >= self.deadline:
            return Status.TIME_LIMIT
        return Status.TIME_LIMIT if self.given_up() else None

    def width(self, value: float) -> float:
        """How far below `value` a bound may lie and prove the gap; negative where rounding forbids it."""
        return self.gap * abs(value + self.offset) - self.margin

    def worthwhile(self, value: float) -> float:
        """The width that a search should leave: not below half the gap's, or `margin` keeps it for ever."""
        return max(self.width(value), 0.5 * self.gap * abs(value + self.offset))

    def target(self, value: float) -> float:
        """The bound that proves `value` to the gap asked for; above it where `margin` swallows the gap."""
        return value - self.width(value)

    def told(self, bound: float) -> float:
        """A bound of the reduced problem as one of the original's: with the margin, not below the floor."""
        return max(self.floor, bound + self.offset - self.margin)

    def report(self, value: float, bound: float, nodes: int = 0, mask: Mask | None = None) -> None:
        """Record the incumbent and bound, and tell the callback."""
        upper = value + self.offset + self.margin
        upper = max(self.floor, upper + max(0.0, self.noise - SHOWN * abs(upper)))
        bounds = Bounds(min(self.told(bound), upper), upper)
        shown = None if mask is None else self.lift(mask)
        self.trace.append(Progress(self.seconds, bounds, nodes))
        self.heard = time.perf_counter()
        if self.callback is not None and self.callback(Progress(self.seconds, bounds, nodes, shown)):
            self.interrupted = True

    def _beat(self) -> None:
        """Repeat the last progress to the callback after `HEARTBEAT`; in the thread that made the control."""
        now = time.perf_counter()
        if self.callback is None or now - self.heard < HEARTBEAT or threading.get_ident() != self.thread:
            return
        self.heard = now
        last = self.trace[-1] if self.trace else Progress(0.0, Bounds())
        if self.callback(Progress(self.seconds, last.bounds, last.nodes)):
            self.interrupted = True

    def within(self, seconds: float) -> Control:
        """A control for a part of the search that may take so many seconds, and reports as this one."""
        until = time.perf_counter() + seconds
        deadline = until if self.deadline is None else min(until, self.deadline)
        known = {each.name: getattr(self, each.name) for each in fields(Control)}
        return _Part(**known | {"deadline": deadline, "callback": None}, parent=self)

    def quiet(self, *, gap: float | None = None, warm_start: Mask | None = None) -> Control:
        """A control for a sub-solve: the same limits and interruption, its progress not reported."""
        return _Child(
            gap=self.gap if gap is None else gap, seed=self.seed, device=self.device,
            deadline=self.deadline, warm_start=warm_start, parent=self,
        )  # fmt: skip


@dataclass
class _Part(Control):
    parent: Control = field(kw_only=True)

    def stopped(self) -> Status | None:
        """As the parent, and at a deadline of its own."""
        return self.parent.stopped() or Control.stopped(self)

    def report(self, value: float, bound: float, nodes: int = 0, mask: Mask | None = None) -> None:
        """As the parent."""
        self.parent.report(value, bound, nodes, mask)


@dataclass
class _Child(Control):
    parent: Control = field(kw_only=True)

    def stopped(self) -> Status | None:
        """As the parent's."""
        return self.parent.stopped()


def share_limit(
    start: float, time_limit: float | None, certify: bool
) -> tuple[float | None, Callable[[], bool]]:
    """When a search must end, and whether its certificate must by now: both within the time limit.

    Args:
        start: `time.perf_counter()` when the clock started.
        time_limit: seconds, or None.
        certify: whether there will be a certificate.
    """
    if time_limit is None:
        return None, lambda: False
    end = start + time_limit
    return start + (SEARCH if certify else 1.0) * time_limit, lambda: time.perf_counter() >= end


def is_number(value: object) -> bool:
    """Whether a value can be compared with numbers, as a word or a list can't."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_limits(time_limit: float | None, gap: float, seed: int) -> None:
    """Raise ValueError for a time limit, gap or seed that is none."""
    if time_limit is not None and not (is_number(time_limit) and 0 < time_limit < math.inf):
        raise ValueError(f"time_limit must be positive seconds or None, got {time_limit!r}")
    if not is_number(gap) or not 0 <= gap < math.inf:
        raise ValueError(f"gap must be a finite number >= 0, got {gap!r}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be a whole number >= 0, got {seed!r}")


@contextmanager
def interruptible(control: Control) -> Iterator[None]:
    """Turn the first Ctrl-C into a polite request; a second one raises `KeyboardInterrupt`.

    Nested in another one, both controls hear the request.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        if control.interrupted:
            raise KeyboardInterrupt
        control.interrupted = True
        if getattr(before, "polite", False):
            before(number, frame)  # type: ignore[operator, misc]

    handler.polite = True  # type: ignore[attr-defined]
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def working(until: float | None) -> Iterator[Control]:
    """The limits of a part of a search on a worker; an interruption there is a polite request.

    Args:
        until: `time.time()` at which to stop, by a clock that agrees with the worker's to a moment; or None.
    """
    deadline = None if until is None else time.perf_counter() + max(0.0, until - time.time())
    control = Control(deadline=deadline)
    with interruptible(control):
        yield control
