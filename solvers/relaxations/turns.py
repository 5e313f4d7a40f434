"""Turns of rows that are worked on side by side: each gets its share of the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

from solvers.control import Control
from solvers.runtime.parallel import workers


class Turns:
    """What is left of a deadline, divided among those that still wait.

    Args:
        control: with a deadline.
        count: how many wait at first.
        least: seconds that a turn takes if it is to come to anything; with less for all, the last get none.
    """

    def __init__(self, control: Control, count: int, least: float = 0.0) -> None:
        self._control, self._waiting, self._lock, self._least = control, count, Lock(), least

    def share(self) -> float:
        """Seconds of the next turn: with as many at work as there are cores, so many times its part."""
        with self._lock:
            waiting, self._waiting = max(1, self._waiting), self._waiting - 1
        return max(self._least, (self._control.remaining or 0.0) * min(workers(), waiting) / waiting)

    def over(self) -> Callable[[], object]:
        """Begin the next turn: a test of whether it is over, also true when the whole search must stop."""
        until = time.perf_counter() + self.share()
        return lambda: self._control.stopped() or time.perf_counter() >= until
