"""Wide layers: an annealed mask, then reheating all rows or swapping in some, as each gains by the second."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from solvers.control import Control
from solvers.hessian.base import FORM_BYTES
from solvers.heuristics.annealing import GAIN, Annealing, Refitted
from solvers.heuristics.layer import Layer, Tensor
from solvers.heuristics.local_search import LocalSearch
from solvers.heuristics.rows.search import row_data, state
from solvers.heuristics.rows.swaps import descend
from solvers.heuristics.rows.tableau import refresh
from solvers.heuristics.sparsegpt import SparseGPT
from solvers.heuristics.tabu import Tabu
from solvers.parallel import side_by_side, workers
from solvers.problem import Mask, SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome, Solver

REFRESH = 50
"""Swaps between two fresh tableaux."""
LEAST = 1e-9
"""Least relative gain of a swap."""
SLICE = 0.1
"""Seconds of a round of swaps, but for a row that was begun."""
FIRST_SHARE = 0.6
"""Part of the time that the first annealing may take."""
SPEED = 1e10
"""Operations a second of a core on small matrices, about."""
BATCHED = 5e10
"""The same on large ones."""
KINDS = ("swaps", "reheat")
ROUND = 2.0
"""A round takes so many times as long as one refit, at least; what there is no time for is not begun."""
NARROW = 128
"""Inputs up to which the exact tableau of every row is the better start, too."""
LITTLE = 0.5
"""Seconds below which it may take all."""


@dataclass(frozen=True)
class Portfolio(Solver):
    """The annealed ADMM from dense weights, then rounds of whichever of two gains more per second.

    - *reheat*: the ADMM from the best mask, all rows at once, each keeping its better mask;
    - *swaps*: best 1-swaps on the exact tableau, in rows that changed since they had them.

    Without a time limit it ends when no swap gains and `patience` reheats in a row gained next to nothing.
    A limit too short for the shortest of annealings is spent on a pass of SparseGPT. Rows of up to `NARROW`
    inputs go to the tabu search; wider problems that are no `Layer` (selection; a curvature a row), and
    columns if a tableau of all rows fits, to the local search.

    Attributes:
        stages: of the first annealing.
        patience: reheats without gain that end the search.
        share: part of the time left that may be used.
        memory: bytes that tableaux may take; rows wider than one allows are not swapped in.
    """

    stages: int = 60
    patience: int = 2
    share: float = 1.0
    memory: int = 2 << 30

    name: ClassVar[str] = "portfolio"
    summary: ClassVar[str] = "annealed ADMM, then reheating and best 1-swaps by what they gain"

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        if not self._annealable(problem):
            solver = Tabu() if problem.n <= NARROW and Tabu().refuses(problem) is None else LocalSearch()
            found = solver.run(problem, control)
            return Outcome(found.mask, reason=found.reason, stats={**found.stats, "ran": [solver.name]})
        end = math.inf
        if control.remaining is not None:
            spare = max(0.0, control.remaining - _valuing(problem))
            end = time.perf_counter() + self.share * spare
        mask: Mask
        stats: dict[str, Any]
        if end - time.perf_counter() < _annealing(problem) and problem.budget.kind in SparseGPT.budgets:
            layer = Layer(problem, control.device)
            mask, stats = layer.mask(SparseGPT().sweep(layer)[0]), {"ran": ["sparsegpt"]}
        else:
            mask, stats = _Search(self, problem, control, end).run()
        value = problem.value(mask)
        if control.warm_start is not None and problem.value(control.warm_start) < value:
            mask, value = control.warm_start, problem.value(control.warm_start)
        control.report(value, -np.inf, mask=mask)
        return Outcome(mask, reason=control.stopped() or Status.FEASIBLE, stats=stats)

    def _annealable(self, problem: SubsetProblem) -> bool:
        """Whether a problem is a wide `Layer`; columns whose tableaux fit do better without."""
        small = problem.pools.coupled and 48 * problem.m * problem.n**2 <= self.memory
        formed = 8 * problem.n**2 <= FORM_BYTES
        wide = problem.n > NARROW and problem.hessian.shared
        return problem.refit and wide and formed and not small


class _Search:
    """The two kinds of rounds on one layer.

    Attributes:
        best: the mask so far, refitted.
        lasts: seconds of the last round of each kind, or what it may take.
        ran: how often each kind of round ran, and what it lowered the cost by, relative.
    """

    best: Refitted
    lasts: dict[str, float]

    def __init__(self, settings: Portfolio, problem: SubsetProblem, control: Control, end: float) -> None:
        self.settings, self.problem, self.control, self.end = settings, problem, control, end
        self.layer = Layer(problem, control.device, leveled=True)
        self.annealing = Annealing(self.layer, control.seed)
        self.apart = problem.budget.kind in ("per_row", "n_of_m")
        self.swapped = np.zeros(problem.m, dtype=bool)
        self.ran: dict[str, dict[str, float]] = {}

    def run(self) -> tuple[Mask, dict[str, Any]]:
        """The best mask found, and what was done."""
        pruned, steps = self._first()
        others = [] if self.control.warm_start is None else [self.layer.pruned(self.control.warm_start)]
        if self.control.stopped():
            others.append(self.annealing.saliency())
        if others or not self._stopped():
            began = time.perf_counter()
            self.best = self.annealing.refitted(pruned)
            self.lasts = dict.fromkeys(KINDS, ROUND * (time.perf_counter() - began))
            for other in others:
                self._take(self.annealing.refitted(other))
            self._rounds()
            pruned = self.best.pruned
        return self.layer.mask(pruned), {"steps": steps, "ran": ["annealing", *self.ran], "rounds": self.ran}

    def _first(self) -> tuple[Tensor, int]:
        """Anneal in a good part of the time, all of it if little is left."""
        deadline = None
        if self.end < math.inf:
            now = time.perf_counter()
            left = max(0.0, self.end - now)
            deadline = now + (left if left < LITTLE else FIRST_SHARE * left)
        return self.annealing.start(
            stages=self.settings.stages, deadline=deadline, stopped=self.control.stopped
        )

    def _rounds(self) -> None:
        kinds = KINDS if self._swaps_are_cheap() else KINDS[::-1]
        rates, stale = dict.fromkeys(kinds, math.inf), 0
        while not self._stopped() and (before := float(self.best.costs.sum())) > 0.0:
            if not self._swappable():
                rates["swaps"] = -math.inf
            elif rates["swaps"] == -math.inf:
                rates["swaps"] = 0.0
            kind = max(rates, key=lambda kind: rates[kind])
            began = time.perf_counter()
            if rates[kind] == -math.inf or began + self.lasts[kind] > self.end:
                break
            (self._reheat if kind == "reheat" else self._swap)()
            gain = 1.0 - float(self.best.costs.sum()) / before
            seconds = time.perf_counter() - began
            rates[kind], self.lasts[kind] = gain / seconds, seconds
            if kind == "reheat":
                stale = stale + 1 if gain <= GAIN else 0
                if stale >= self.settings.patience:
                    rates[kind] = -math.inf
            record = self.ran.setdefault(kind, {"rounds": 0, "gain": 0.0, "seconds": 0.0})
            for name, amount in (("rounds", 1), ("gain", gain), ("seconds", seconds)):
                record[name] += amount

    def _stopped(self) -> Status | None:
        late = Status.TIME_LIMIT if time.perf_counter() >= self.end else None
        return self.control.stopped() or late

    def _reheat(self) -> None:
        pruned, _ = self.annealing.reheat(self.best, stopped=self._stopped)
        self._take(self.annealing.refitted(pruned))

    def _take(self, other: Refitted) -> None:
        """Keep what is better of another mask: rows, or all of it where rows share a budget."""
        now, then = self.best.costs, other.costs
        if not self.apart:
            now, then = now.sum().expand_as(now), then.sum().expand_as(then)
        rows = torch.nonzero(then < (1.0 - GAIN) * now)[:, 0]
        self.best.take(Refitted(*(part[rows] for part in other)), rows)
        self.swapped[rows.cpu().numpy()] = False

    def _swappable(self) -> bool:
        fits = 8 * self.problem.n**2 * workers() <= self.settings.memory
        return fits and not self.problem.pools.coupled and not self.swapped.all()

    def _swaps_are_cheap(self) -> bool:
        """Whether the tableaux of all rows take a small part of the time left, or there is no limit."""
        kept = float(self.problem.pools.keep.sum()) / self.problem.m
        work = 2.0 * self.problem.m * kept**2 * (kept + self.problem.n) / workers()
        return bool(work / SPEED <= 0.1 * (self.end - time.perf_counter()))

    def _swap(self) -> None:
        """Best 1-swaps, for a while, in rows that have not had them; in all where rows share a budget."""
        mask = self.layer.mask(self.best.pruned)
        if self.apart:
            until = time.perf_counter() + SLICE
            waiting = np.flatnonzero(~self.swapped)
            done = side_by_side(lambda r: self._descend(int(r), mask[r], until), waiting)
            rows = waiting[np.array(done)]
        else:
            rows = np.arange(self.problem.m)
            mask, _, _ = LocalSearch().improve(self.problem, mask, self._stopped)
        index = torch.as_tensor(rows, device=self.layer.device)
        self.best.take(self.annealing.refitted(self.layer.pruned(mask[rows]), index), index)
        self.swapped[rows] = True

    def _descend(self, r: int, pruned: Mask, until: float) -> bool:
        """Best 1-swaps in a row until none gains; changes `pruned [n]`, says whether it was begun in time."""
        if time.perf_counter() >= min(until, self.end) or self.control.stopped():
            return False
        row = state(row_data(self.problem, r), pruned)
        while descend(row, LEAST, REFRESH) == REFRESH and not self._stopped():
            refresh(row)
        return True


def _annealing(problem: SubsetProblem) -> float:
    """Seconds that a course of four stages takes, about, with what comes before it."""
    m, n = problem.W.shape
    return float(5.0 * n * n * n + 24.0 * m * n * n) / BATCHED


def _valuing(problem: SubsetProblem) -> float:
    """Seconds that the value of a mask takes, about: a solve a row, and half of that for the rest."""
    index = np.arange(problem.n)[: int(problem.pools.keep.sum() * problem.n / problem.pools.labels.size)]
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        problem.hessian.solve(0, index, np.zeros(len(index)))
        seconds.append(time.perf_counter() - began)
    return float(min(seconds) * 1.5 * problem.m / workers())
