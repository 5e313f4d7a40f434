"""Foreign solvers on one independent part of a problem after the other, polled while they run."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import Any, TypeVar

import numpy as np

from solvers.bounds.evaluate import trivial_bound
from solvers.control import Control
from solvers.form.blocks import Part, independent
from solvers.heuristics.greedy import opening
from solvers.heuristics.local_search import LocalSearch
from solvers.problem import Mask, SubsetProblem
from solvers.relaxations.split import Relaxation
from solvers.solution import Status
from solvers.solver import Outcome

T = TypeVar("T")

POLL = 0.02
"""Seconds between two looks at the control while a foreign solver runs."""
QUIET = 0.1
"""Seconds between two reports of a moving bound."""


@dataclass(frozen=True)
class Event:
    """News from a foreign solver's callback: a mask, a claimed bound, its nodes so far."""

    mask: Mask | None = None
    claim: float = -math.inf
    nodes: int = 0


@dataclass
class InTurn:
    """The parts of a problem, and the conversation with the control while they are solved.

    Attributes:
        parts: independent pieces, in the order of their rows.
        control: of the whole solve.
        widening: what foreign tolerances and rounding can have moved a part's bound by at most.
        notes: more for `Outcome.stats`.
    """

    parts: Sequence[Part]
    control: Control
    widening: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)
    _reported: float = field(default=-math.inf, init=False)

    @property
    def mask(self) -> Mask:
        """The parts' best masks together, `[m, n]`."""
        return np.concatenate([part.mask for part in self.parts])

    def solve(self, solve_part: Callable[[Part], bool]) -> Status:
        """Have `solve_part` work on every part that is not proven; why it ended.

        A part may take the time left divided by the parts still waiting; a part cut short is tried
        again when the others leave it more. A part is asked for the gap of the whole, and for less
        where values of different signs cancel.

        Args:
            solve_part: works on a part within its `gap` and `seconds`, and says whether the time cut
                it short.
        """
        self._report()
        cut: dict[int, bool] = {}
        tried = True
        while tried:
            tried = False
            gap = self._gap()
            waiting = [i for i, part in enumerate(self.parts) if not part.met(gap)]
            for done, i in enumerate(waiting):
                if stop := self.control.stopped():
                    return stop
                left = self.control.remaining
                if self.parts[i].promise(gap, left and left / (len(waiting) - done)):
                    tried = True
                    cut[i] = solve_part(self.parts[i])
                    self._report()
        unproven = [i for i, part in enumerate(self.parts) if not part.met(part.gap)]
        return self.control.stopped() or (
            Status.TIME_LIMIT if any(cut.get(i) for i in unproven) else Status.OPTIMAL
        )

    def watch(self, part: Part, solve: Callable[[Callable[[Event], None]], T], stop: Callable[[], None]) -> T:
        """Run a foreign solver in a thread, take its news, and stop it when the control says so.

        Args:
            part: what it works on.
            solve: runs it, and calls its argument with every `Event`, from any thread.
            stop: asks it to return soon; may be called more than once, from this thread.

        Returns:
            What `solve` returned.

        Raises:
            Exception: what `solve` raised.
        """
        news: Queue[Event | None] = Queue()  # SimpleQueue waits for ever if a signal comes at its timeout
        ended: list[T] = []
        failures: list[BaseException] = []

        def work() -> None:
            try:
                ended.append(solve(news.put))
            except BaseException as error:
                failures.append(error)
            finally:
                news.put(None)

        start = part.nodes
        thread = threading.Thread(target=work, name="foreign-solver", daemon=True)
        thread.start()
        try:
            while True:
                try:
                    event = news.get(timeout=POLL)
                except Empty:
                    event = Event()
                if event is None:
                    break
                self._take(part, event, start)
                _keep_handler()
                if self.control.stopped():
                    stop()
        finally:
            while thread.is_alive():
                stop()
                thread.join(POLL)
        if failures:
            raise failures[0]
        return ended[0]

    def outcome(self, reason: Status) -> Outcome:
        """The parts' answers as one."""
        excess = max((part.excess for part in self.parts), default=0.0)
        nodes = sum(part.nodes for part in self.parts)
        stats = {"parts": len(self.parts), "nodes": nodes, "bound_widening": self.widening} | self.notes
        if excess > 0.0:
            stats["bound_above_value"] = excess
        return Outcome(self.mask, sum(part.bound for part in self.parts), reason, stats)

    def _take(self, part: Part, event: Event, start: int) -> None:
        better = event.mask is not None and part.found(event.mask)
        part.claim = max(part.claim, event.claim)
        part.nodes = max(part.nodes, start + event.nodes)
        if better or self.control.seconds - self._reported > QUIET:
            self._report()

    def _report(self) -> None:
        self._reported = self.control.seconds
        value = sum(part.value for part in self.parts)
        bound = sum(part.bound for part in self.parts)
        self.control.report(value, bound, sum(part.nodes for part in self.parts), self.mask)

    def _gap(self) -> float:
        apart = sum(abs(part.value) for part in self.parts)
        width = self.control.worthwhile(sum(part.value for part in self.parts))
        return self.control.gap if width >= self.control.gap * apart else width / apart


def in_turn(problem: SubsetProblem, control: Control, floors: Sequence[float] | None = None) -> InTurn:
    """Split a reduced problem into parts, each with the incumbent of a local search.

    Args:
        problem: the reduced problem.
        control: of the solve.
        floors: a valid bound for every part, in the order of the rows; by default `trivial_bound`.
    """
    start = opening(problem, control)
    mask, _, _ = LocalSearch().improve(problem, start, control.stopped)
    parts = []
    for i, (rows, piece) in enumerate(independent(problem)):
        floor = max(trivial_bound(piece), -math.inf if floors is None else floors[i])
        parts.append(Part(piece, rows, mask[rows], piece.value(mask[rows]), floor))
    return InTurn(parts, control)


def prepare_start(like: SubsetProblem | None) -> None:
    """Have ready what is compiled for the mask and the bounds that foreign solvers start from."""
    for solver in (LocalSearch(), Relaxation()):
        solver.prepare(like)


def _keep_handler() -> None:
    """Put Python's handler of Ctrl-C back where a foreign solver has put its own."""
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGINT)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
