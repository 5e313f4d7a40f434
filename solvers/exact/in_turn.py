"""Foreign solvers on one independent part of a problem after the other, polled while they run."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from solvers.budget import Budget
from solvers.control import Control
from solvers.heuristics.greedy import greedy_mask
from solvers.heuristics.local_search import LocalSearch
from solvers.problem import Mask, SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome

EPSILON = float(np.finfo(np.float64).eps)
POLL = 0.02
"""Seconds between two looks at the control while a foreign solver runs."""
QUIET = 0.1
"""Seconds between two reports of a moving bound."""


@dataclass
class Part:
    """An independent piece of a problem, and what is known of its optimum.

    Attributes:
        problem: the piece as a problem of its own.
        rows: its rows in the whole.
        mask: its best mask so far.
        value: the mask's value.
        floor: a bound known before any foreign solver ran.
        claim: the best bound a foreign solver claimed, already widened.
        gap: relative gap to ask of the foreign solver.
        seconds: time it may take, or None.
        nodes: its work so far.
        attempts: times that a foreign solver was started on it.
    """

    problem: SubsetProblem
    rows: slice
    mask: Mask
    value: float
    floor: float
    claim: float = -math.inf
    gap: float = 0.0
    seconds: float | None = None
    nodes: int = 0
    attempts: int = 0

    @property
    def excess(self) -> float:
        """How far the claim lies above the value of a mask: a bound on what the claim is wrong by."""
        return max(0.0, self.claim - self.value)

    @property
    def bound(self) -> float:
        """The best valid bound: a claim above the value is lowered by twice its visible error."""
        return max(self.floor, self.claim - 2.0 * self.excess)

    def met(self, gap: float) -> bool:
        """Whether a relative gap is proven."""
        return self.value - self.bound <= gap * abs(self.value)

    def promise(self, gap: float, seconds: float | None) -> bool:
        """Set what the next attempt is asked; False if it is hardly more than the last."""
        again = (
            not self.attempts
            or gap < 0.9 * self.gap
            or (self.seconds is not None and seconds is not None and seconds > 2.0 * self.seconds)
        )
        if again:
            self.gap, self.seconds = gap, seconds
            self.attempts += 1
        return again

    def found(self, mask: Mask) -> bool:
        """Take a mask if it is the best so far; its value is recomputed."""
        value = self.problem.value(mask)
        better = value < self.value
        if better:
            self.mask, self.value = mask, value
        return better


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
    """

    parts: Sequence[Part]
    control: Control
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
            factor = self._gap_factor()
            waiting = [i for i, part in enumerate(self.parts) if not part.met(factor * self.control.gap)]
            for done, i in enumerate(waiting):
                if stop := self.control.stopped():
                    return stop
                left = self.control.remaining
                if self.parts[i].promise(factor * self.control.gap, left and left / (len(waiting) - done)):
                    tried = True
                    cut[i] = solve_part(self.parts[i])
                    self._report()
        unproven = [i for i, part in enumerate(self.parts) if not part.met(part.gap)]
        return self.control.stopped() or (
            Status.TIME_LIMIT if any(cut.get(i) for i in unproven) else Status.OPTIMAL
        )

    def watch(
        self, part: Part, solve: Callable[[Callable[[Event], None]], None], stop: Callable[[], None]
    ) -> None:
        """Run a foreign solver in a thread, take its news, and stop it when the control says so.

        Args:
            part: what it works on.
            solve: runs it, and calls its argument with every `Event`, from any thread.
            stop: asks it to return soon; may be called more than once, from this thread.

        Raises:
            Exception: what `solve` raised.
        """
        news: SimpleQueue[Event | None] = SimpleQueue()
        failures: list[BaseException] = []

        def work() -> None:
            try:
                solve(news.put)
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

    def outcome(self, reason: Status, stats: dict[str, Any]) -> Outcome:
        """The parts' answers as one; `stats` gain the nodes and the largest visible bound error."""
        excess = max((part.excess for part in self.parts), default=0.0)
        stats = {"parts": len(self.parts), "nodes": sum(p.nodes for p in self.parts), **stats}
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

    def _gap_factor(self) -> float:
        total = abs(sum(part.value for part in self.parts) + self.control.offset)
        apart = sum(abs(part.value) for part in self.parts)
        return 1.0 if total >= apart else total / apart


def in_turn(problem: SubsetProblem, control: Control, floors: Sequence[float] | None = None) -> InTurn:
    """Split a reduced problem into parts, each with the incumbent of a local search.

    Args:
        problem: the reduced problem.
        control: of the solve.
        floors: a valid bound for every part, in the order of the rows; by default `trivial_bound`.
    """
    start = greedy_mask(problem, control.device) if control.warm_start is None else control.warm_start
    mask, _, _ = LocalSearch().improve(problem, start, control.stopped, control.device)
    parts = []
    for i, (rows, piece) in enumerate(independent(problem)):
        floor = max(trivial_bound(piece), -math.inf if floors is None else floors[i])
        parts.append(Part(piece, rows, mask[rows], piece.value(mask[rows]), floor))
    return InTurn(parts, control)


def independent(problem: SubsetProblem) -> list[tuple[slice, SubsetProblem]]:
    """The pieces of a reduced problem that share no pool: one a row, or the whole.

    Returns:
        Their rows in the problem, and each as a problem of its own.
    """
    kind = problem.budget.kind
    if kind in ("per_layer", "columns") or problem.m == 1:
        return [(slice(0, problem.m), problem)]
    pieces = []
    for r in range(problem.m):
        rows = slice(r, r + 1)
        budget = Budget.per_row(int(problem.pools.prune[r])) if kind == "per_row" else problem.budget
        gradient = None if problem.G is None else problem.G[rows]
        piece = SubsetProblem(
            problem.W[rows], problem.hessian.dense(r), budget, refit=problem.refit, gradient=gradient
        )
        pieces.append((rows, piece))
    return pieces


def trivial_bound(problem: SubsetProblem) -> float:
    """0 without a gradient; with one, no less than pruning the `k` largest `g_i w_i` at no curvature."""
    if problem.G is None:
        return 0.0
    scores = -problem.G * problem.W
    if problem.pools.coupled:
        scores = scores.sum(axis=0, keepdims=True)
    least = float(scores[problem.pools.smallest(scores)].sum())
    size = float(np.abs(problem.G * problem.W).sum())
    rounding: float = 4.0 * (scores.size + problem.m) * EPSILON * size
    return least - rounding


def _keep_handler() -> None:
    """Put Python's handler of Ctrl-C back where a foreign solver has put its own."""
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGINT)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
