"""The largest sparsity whose measured loss stays within a limit: a root search over prunings of one network.

With `t = -log(1 - sparsity)` the loss increase grows about exponentially, so that the search interpolates its
logarithm over `t` (regula falsi), kept inside the bracket, and halves the bracket where that does not help.
Nothing is assumed of the increase: what comes back was measured, and the largest sparsity that was tried and
met the limit is kept. Curvatures and row curves are computed once, for all trials.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cbs.assemble import Run
from cbs.methods import get_method
from cbs.network.evaluate import Evaluation
from cbs.network.network import Network
from cbs.request import MOST, Request
from cbs.schedule.between import sparsity_before
from cbs.trials import Search, Trial
from cbs.watch import Callback, Step, Watch
from solvers.control import Control, interruptible

Once = Callable[[Request, Callback | None], Run]
"""Prunes as a request with a sparsity asks."""

RESOLUTION = 0.02
"""Where the search ends: this share of the weights that are left may be too many."""
FIRST = math.log(2)
"""Where it begins: half of the weights."""
NEAR = 0.15
"""First step around a sparsity that cheaper prunings have found, in `t`."""
TRIALS = 30
"""Most prunings of one search."""
SHARE = 0.25
"""Of the time that is left, what one trial may take."""
WITHIN = (0.15, 0.85)
"""Where in the bracket an interpolation may lie."""
TOP = -math.log1p(-MOST)
"""The largest `t`."""


class LimitWarning(UserWarning):
    """No sparsity is within the limit: the network comes back as it was."""


def search(network: Network, request: Request, callback: Callback | None, once: Once) -> Run:
    """Prune to the largest sparsity that is found within the request's limits.

    A method that searches is first run greedily and without proofs, to find out where to look; what is
    returned is then pruned as the request says. Ctrl-C, and the time limit, end it with the best that was
    found; the network as it was is always within the limits.

    Args:
        network: the dense network; measured is on what it holds out, or else on its samples.
        request: with limits, and without a sparsity.
        callback: told of every step.
        once: prunes once.

    Returns:
        The run of the largest sparsity that met the limits, and how it was found in `result.search`.

    Raises:
        ValueError: in one line, for a limit on the accuracy where there is none.
    """
    _require_accuracy(network, request)
    method = get_method(request.method)
    floor = sparsity_before(network, request)
    first = replace(request, sparsity=-math.expm1(-FIRST))
    Watch(method.name, first, len(network.layers), callback).prepare(
        method.searches, method.selection.searcher(first)
    )
    hunt = _Hunt(network, request, callback, once, floor)
    passing = _in_passing(request)
    with interruptible(hunt.control):
        try:
            start, step = FIRST, FIRST
            if passing is not None:
                start, step = hunt.narrow(_Bracket(_t(floor), start, step), passing), NEAR
            hunt.narrow(_Bracket(_t(floor), start, step), None)
        except KeyboardInterrupt:
            hunt.control.interrupted = True
    return hunt.concluded()


@dataclass
class _Bracket:
    """Where the limit is passed, in `t`: between `low`, which is within it, and `high`, which is not.

    Attributes:
        low: largest that is known to be within.
        start: where to begin.
        step: how far to go from there until both ends are known; doubled every time.
        excess: at `low`, how much of the limit is used; 1 is all.
        high: least that is known to pass it; infinite while none is.
        over: at `high`.
    """

    low: float
    start: float
    step: float
    excess: float = 0.0
    high: float = math.inf
    over: float = math.inf
    _found: bool = False
    _widths: list[float] = field(default_factory=lambda: [math.inf])

    def next(self) -> float | None:
        """Where to try next, or None when the bracket is narrow enough."""
        if math.isinf(self.high):
            if self.low >= TOP - RESOLUTION:
                return None
            there = self.low + self._stride() if self._found else max(self.start, self.low + RESOLUTION)
            return min(there, TOP)
        width = self.high - self.low
        if width <= RESOLUTION:
            return None
        if not self._found and self.high - self.step > self.low:
            return self.high - self._stride()
        slow = width > 0.5 * self._widths[-1]
        self._widths.append(math.inf if slow else width)  # halve it once, and interpolate again
        if slow or not math.isfinite(self.over):
            return self.low + width / 2
        if self.excess > 0:
            share = -math.log(self.excess) / (math.log(self.over) - math.log(self.excess))
        else:
            share = (1.0 - self.excess) / (self.over - self.excess)
        return self.low + min(max(share, WITHIN[0]), WITHIN[1]) * width

    def _stride(self) -> float:
        self.step, step = 2 * self.step, self.step
        return step

    def learn(self, t: float, excess: float) -> None:
        """Take in what a trial used of the limit."""
        if excess > 1:
            if t < self.high:
                self.high, self.over = t, excess
        elif t > self.low:
            self.low, self.excess, self._found = t, excess, True
        if self.high < self.low:  # it is not monotone: what lies above is searched on
            self.high, self.over = math.inf, math.inf


class _Hunt:
    """A search under way: its trials, the best run, and its limits of time."""

    def __init__(
        self, network: Network, request: Request, callback: Callback | None, once: Once, floor: float
    ) -> None:
        self.network, self.request, self.callback, self.once = network, request, callback, once
        self.floor, self.control = floor, Control()
        self.trials: list[Trial] = []
        self.best: dict[bool, Run] = {}
        limit = request.time_limit
        self._until = math.inf if limit is None else time.perf_counter() + limit
        self.late = False

    def narrow(self, bracket: _Bracket, passing: Request | None) -> float:
        """Try sparsities until the bracket is narrow, or a limit ends it; the largest `t` within."""
        while len(self.trials) < TRIALS and not self.control.interrupted and not self._is_late():
            t = bracket.next()
            if t is None:
                break
            bracket.learn(t, self._try(passing or self.request, -math.expm1(-t), passing is not None))
        return bracket.low

    def _is_late(self) -> bool:
        """Whether there is no time for another trial like the last one."""
        if math.isinf(self._until):
            return False
        last = self.trials[-1].seconds if self.trials else 0.0
        self.late = self.late or time.perf_counter() + last > self._until
        return self.late

    def _try(self, request: Request, sparsity: float, passing: bool) -> float:
        """Prune to a sparsity, and measure what that uses of the limits."""
        left = self._until - time.perf_counter()
        limit = None if math.isinf(left) else max(SHARE * left, 1e-3)
        began = time.perf_counter()
        run = self.once(replace(request, sparsity=sparsity, time_limit=limit), self._telling(sparsity))
        if run.watch.interrupted:
            self.control.interrupted = True
        increase, drop = _measured(run)
        excess = _used(self.request, increase, drop)
        self.trials.append(
            Trial(sparsity, run.result.sparsity, increase, drop, excess <= 1, passing,
                  time.perf_counter() - began)
        )  # fmt: skip
        known = self.best.get(passing)
        if excess <= 1 and (known is None or run.result.sparsity >= known.result.sparsity):
            self.best[passing] = run
        return excess

    def _telling(self, sparsity: float) -> Callback | None:
        """The callback, for which evaluations are those of a trial."""
        number, callback = len(self.trials) + 1, self.callback
        if callback is None:
            return None

        def tell(step: Step) -> object:
            if step.stage == "evaluate" and step.part == step.parts:
                step = replace(step, stage="trial", index=number, count=TRIALS)
            return callback(step)

        return tell

    def concluded(self) -> Run:
        """The best run, as that of the request; of cheaper prunings only if there is no other."""
        run = self.best.get(False) or self.best.get(True)
        status = "interrupted" if self.control.interrupted else "time_limit" if self.late else "done"
        if run is None and self.control.interrupted:
            raise KeyboardInterrupt
        if run is None:
            status = "nothing" if status == "done" else status
            plain = replace(
                self.request, sparsity=self.floor, stages=1, finetune=None, match=None, labels=False,
                norms=None, reselect=None, refit=None, time_limit=None,
            )  # fmt: skip
            run = self.once(plain, self._telling(self.floor))
            if status == "nothing":
                warnings.warn(
                    f"no sparsity that was tried is within {_limits(self.request)}: nothing more is pruned; "
                    "`result.search` has the trials",
                    LimitWarning,
                    stacklevel=6,
                )
        if self.callback is not None:
            self.callback(Step(run.result.method, "evaluate", asked=run.result.asked))
        run.watch.control.interrupted = run.watch.control.interrupted or self.control.interrupted
        data = "calibration" if self.network.held_out is None else "test"
        asked = replace(self.request, sparsity=run.result.request.sparsity)
        result = replace(run.result, request=asked, search=Search(data, status, self.trials))
        left = None if math.isinf(self._until) else max(self._until - time.perf_counter(), 1e-3)
        run.watch.allow(left)
        return replace(run, result=result, request=asked)


def _in_passing(request: Request) -> Request | None:
    """What is asked of trials that only narrow the search; None if there is nothing cheaper."""
    method = get_method(request.method)
    cheap = method.selection.in_passing(replace(request, certify=False))
    if not method.searches or cheap == request:
        return None
    return replace(cheap, reselect=False) if request.refit == "network" else cheap


def _require_accuracy(network: Network, request: Request) -> None:
    before = network.before if network.held_out is None else network.test_before
    if request.max_accuracy_drop is not None and (before is None or before.accuracy is None):
        raise ValueError(
            f"max_accuracy_drop is {request.max_accuracy_drop:g}, but there is no accuracy: targets are no "
            "class labels; give max_loss_increase"
        )


def _measured(run: Run) -> tuple[float, float | None]:
    """Loss increase and drop in accuracy, on test data if there are any."""
    result = run.result
    before: Evaluation | None = result.before
    after: Evaluation | None = result.after
    if result.test_before is not None:
        before, after = result.test_before, result.test_after
    assert before is not None
    assert after is not None
    drop = None if before.accuracy is None or after.accuracy is None else before.accuracy - after.accuracy
    return after.loss - before.loss, drop


def _used(request: Request, increase: float, drop: float | None) -> float:
    """The share of the limits that is used; up to 1 is within them."""
    used = [
        (measured if math.isfinite(measured) else math.inf, limit)
        for measured, limit in ((increase, request.max_loss_increase), (drop, request.max_accuracy_drop))
        if limit is not None and measured is not None
    ]
    return max(value / limit if limit > 0 else (math.inf if value > 0 else 0.0) for value, limit in used)


def _limits(request: Request) -> str:
    names = ("max_loss_increase", "max_accuracy_drop")
    return " and ".join(f"{n} {v:g}" for n in names if (v := getattr(request, n)) is not None)


def _t(sparsity: float) -> float:
    return -math.log1p(-sparsity)
