"""The search of a wide layer: a mask by annealed ADMM, then rounds of reheating or of swaps."""

from __future__ import annotations

import math
import time

import numpy as np

from solvers.control import Control
from solvers.heuristics.layer.annealing import GAIN, Annealing, Refitted
from solvers.heuristics.layer.scaled import Layer
from solvers.heuristics.local_search import LocalSearch, swap_until_none_gains
from solvers.heuristics.rows.search import row_data, state
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.parallel import side_by_side, workers
from solvers.runtime.tensors import torch
from solvers.solution import Status

REFRESH = 50
"""Swaps between two fresh states of a row."""
SLICE = 0.1
"""Seconds after which a round of swaps begins no further row."""
SPEED = 1e10
"""Operations a second of a core on small matrices, about."""
KINDS = ("swaps", "reheat")
ROUND = 2.0
"""First guess of a round's seconds, in refits; a round that there is no time for is not begun."""
MARGIN = 1e-4
"""Relative: costs are computed in single precision, and reported with so much added."""


class Rounds:
    """The search of some rows of a layer.

    Attributes:
        best: the mask so far, refitted, once there is one.
        steps: of the first annealing.

    Args:
        problem: joint, with a shared curvature.
        control: limits and progress.
        layer: the whole of the problem, leveled.
        rows: which rows to search.
        end: `time.perf_counter()` at which to be done.
        memory: bytes that the states of rows may take in swaps; if one a core does not fit, there are none.
    """

    best: Refitted
    steps: int

    def __init__(
        self,
        problem: SubsetProblem,
        control: Control,
        layer: Layer,
        rows: slice,
        end: float,
        memory: int,
    ) -> None:
        self.problem, self.control, self.rows, self.end, self.memory = problem, control, rows, end, memory
        self.layer = layer.part(rows)
        self.annealing = Annealing(self.layer, control.seed)
        self._apart = problem.budget.kind in ("per_row", "n_of_m")
        self._whole = self.layer.m == problem.m
        self._swapped = np.zeros(self.layer.m, dtype=bool)
        self._lasts: dict[str, float] = {}
        self._ran: dict[str, dict[str, float]] = {}

    def run(self, stages: int, patience: int) -> Mask:
        """The best mask found of these rows.

        Args:
            stages: of the first annealing.
            patience: reheats without gain that end the search.
        """
        deadline = None if self.end == math.inf else self.end
        pruned, self.steps = self.annealing.start(
            stages=stages,
            deadline=deadline,
            stopped=lambda: self.control.stopped() is Status.INTERRUPTED,
        )
        warm = self.control.warm_start
        if warm is not None or not self._late(self.annealing.refit_seconds):
            began = time.perf_counter()
            self.best = self.annealing.refitted(pruned)
            self._lasts = dict.fromkeys(KINDS, ROUND * (time.perf_counter() - began))
            if warm is not None:
                self._take(self.annealing.refitted(self.layer.pruned(warm[self.rows])))
            self._report()
            self._rounds(patience)
            pruned = self.best.pruned
        return self.layer.mask(pruned)

    def add_to(self, ran: dict[str, dict[str, float]]) -> None:
        """Add up how often each kind of round ran, how much of the cost it took away, and its seconds."""
        weight = self.layer.m / self.problem.m
        for kind, own in self._ran.items():
            record = ran.setdefault(kind, {"rounds": 0, "gain": 0.0, "seconds": 0.0})
            record["rounds"] += own["rounds"]
            record["gain"] += weight * own["gain"]
            record["seconds"] += own["seconds"]

    def _rounds(self, patience: int) -> None:
        kinds = KINDS if self._swaps_are_cheap() else KINDS[::-1]
        rates, stale = dict.fromkeys(kinds, math.inf), 0
        first = float(self.best.costs.sum())
        while not self._stopped() and (before := float(self.best.costs.sum())) > 0.0:
            if not self._swappable():
                rates["swaps"] = -math.inf
            elif rates["swaps"] == -math.inf:
                rates["swaps"] = 0.0
            kind = max(rates, key=lambda kind: rates[kind])
            if rates[kind] == -math.inf or self._late(self._lasts[kind]):
                break
            began = time.perf_counter()
            (self._reheat if kind == "reheat" else self._swap)()
            gain = 1.0 - float(self.best.costs.sum()) / before
            seconds = time.perf_counter() - began
            rates[kind], self._lasts[kind] = gain / seconds, seconds
            if kind == "reheat":
                stale = stale + 1 if gain <= GAIN else 0
                if stale >= patience:
                    rates[kind] = -math.inf
            record = self._ran.setdefault(kind, {"rounds": 0, "gain": 0.0, "seconds": 0.0})
            for name, amount in (("rounds", 1), ("gain", gain * before / first), ("seconds", seconds)):
                record[name] += amount
            if gain > 0.0:
                self._report()

    def _stopped(self) -> Status | None:
        return self.control.stopped() or (Status.TIME_LIMIT if self._late(0.0) else None)

    def _late(self, seconds: float) -> bool:
        """Whether there is no time left for what takes so long."""
        return self.control.stopped() is not None or time.perf_counter() + seconds >= self.end

    def _report(self) -> None:
        """Tell the cost so far, where it is that of all rows."""
        if self._whole:
            value = float(self.best.costs.double().sum()) * (1.0 + MARGIN)
            self.control.report(value, -np.inf, mask=self.layer.mask(self.best.pruned))

    def _reheat(self) -> None:
        pruned, _ = self.annealing.reheat(self.best, stopped=self._stopped)
        self._take(self.annealing.refitted(pruned))

    def _take(self, other: Refitted) -> None:
        """Keep what is better of another mask: rows, or all of it where rows share a budget."""
        now, then = self.best.costs, other.costs
        if not self._apart:
            now, then = now.sum().expand_as(now), then.sum().expand_as(then)
        rows = torch.nonzero(then < (1.0 - GAIN) * now)[:, 0]
        self.best.take(Refitted(*(part[rows] for part in other)), rows)
        self._swapped[rows.cpu().numpy()] = False

    def _swappable(self) -> bool:
        kept = float(self.problem.pools.keep.sum()) / self.problem.m
        fits = 8.0 * kept * (2.0 * self.layer.n + kept) * workers() <= self.memory
        return fits and not self.problem.pools.coupled and not self._swapped.all()

    def _swaps_are_cheap(self) -> bool:
        """Whether the tableaux of all rows take a small part of the time left, or there is no limit."""
        kept = float(self.problem.pools.keep.sum()) / self.problem.m
        work = 2.0 * self.layer.m * kept**2 * (kept + self.layer.n) / workers()
        return bool(work / SPEED <= 0.1 * (self.end - time.perf_counter()))

    def _swap(self) -> None:
        """Best 1-swaps, for a while, in rows that have not had them; in all where rows share a budget."""
        mask = self.layer.mask(self.best.pruned)
        if self._apart:
            until = time.perf_counter() + SLICE
            waiting = np.flatnonzero(~self._swapped)
            done = side_by_side(lambda r: self._descend(int(r), mask[r], until), waiting)
            rows = waiting[np.array(done)]
        else:
            rows = np.arange(self.layer.m)
            mask, _, _ = LocalSearch().improve(self.problem, mask, self._stopped)
        index = torch.as_tensor(rows, device=self.layer.device)
        self.best.take(self.annealing.refitted(self.layer.pruned(mask[rows]), index), index)
        self._swapped[rows] = True

    def _descend(self, r: int, pruned: Mask, until: float) -> bool:
        """Best 1-swaps in a row until none gains; changes `pruned [n]`, says whether it was begun in time."""
        if time.perf_counter() >= min(until, self.end) or self.control.stopped():
            return False
        row = state(row_data(self.problem, self.rows.start + r), pruned)
        swap_until_none_gains(row, REFRESH, self._stopped)
        return True
