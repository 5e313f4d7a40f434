"""Try every mask: the oracle that other solvers are tested against."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.allocation import allocate
from solvers.budget import GROUPS, KINDS, UNITS
from solvers.control import Control
from solvers.exact.enumeration import choices, count
from solvers.problem import DIGITS, Mask, SubsetProblem
from solvers.runtime.rehearsal import rehearse
from solvers.solution import Status
from solvers.solver import Outcome, Solver


@dataclass(frozen=True)
class BruteForce(Solver):
    """Enumerate the masks of the budget: each row apart, or the columns of coupled rows together.

    A pool over the whole layer needs every subset of every row once: the best of each size make
    exact row curves, and their exact allocation is the optimum.

    Attributes:
        limit: largest number of masks it will try.
    """

    limit: int = 2_000_000

    name: ClassVar[str] = "brute-force"
    summary: ClassVar[str] = "every mask in turn; tiny problems, the oracle of the tests"
    proves: ClassVar[str] = "optimality"
    budgets: ClassVar[tuple[str, ...]] = (*KINDS, GROUPS, UNITS)

    def prepare(self, like: SubsetProblem | None = None) -> None:
        """See `Solver.prepare`."""
        rehearse(BruteForce(), like)

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        count = _count(problem)
        if count > self.limit:
            return f"it has {count:.3g} masks, more than the limit of {self.limit:.3g}"
        return None

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        pools = problem.pools
        mask = pools.expand(pools.smallest(np.zeros(pools.labels.shape)), problem.m)
        try:
            if problem.budget.kind == "per_layer":
                mask = _by_curves(problem, control)
            elif pools.coupled:
                mask[:] = _best(choices(problem, 0), problem.n, problem.m, problem.value, control)[0]
            else:
                for r in range(problem.m):
                    value = problem.row(r, int(pools.prune[np.unique(pools.labels[r])].sum())).value
                    mask[r] = _best(choices(problem, r), problem.n, 1, value, control)[0]
        except _Stopped as stop:
            control.report(problem.value(mask), -math.inf, mask=mask)
            return Outcome(mask, reason=stop.reason)
        value_found = problem.value(mask)
        off = min(DIGITS * abs(value_found), problem.rounding)
        bound = value_found - off - 1e-12 * problem.scale
        control.report(value_found, bound, _count(problem), mask)
        return Outcome(mask, bound, Status.OPTIMAL, {"masks": _count(problem)})


class _Stopped(Exception):
    def __init__(self, reason: Status) -> None:
        self.reason = reason


def _best(
    tries: Iterator[list[int]], n: int, copies: int, value: Callable[[Mask], float], control: Control
) -> tuple[Mask, float]:
    """The cheapest choice as a row of decisions, and its cost."""
    best, lowest = np.zeros(n, dtype=bool), math.inf
    for tried, choice in enumerate(tries):
        mask = np.zeros((copies, n), dtype=bool)
        mask[:, choice] = True
        cost = value(mask)
        if cost < lowest:
            best, lowest = mask[0], cost
        if tried % 256 == 0 and (reason := control.stopped()):
            raise _Stopped(reason)
    return best, lowest


def _by_curves(problem: SubsetProblem, control: Control) -> Mask:
    m, n = problem.W.shape
    curves, masks = np.empty((m, n + 1)), np.empty((m, n + 1, n), dtype=bool)
    for r in range(m):
        for k in range(n + 1):
            subsets = (list(choice) for choice in itertools.combinations(range(n), k))
            masks[r, k], curves[r, k] = _best(subsets, n, 1, problem.row(r, k).value, control)
    counts = allocate(list(curves), int(problem.pools.prune[0]))
    return np.array(masks[np.arange(m), counts])


def _count(problem: SubsetProblem) -> int:
    """How many masks will be tried."""
    if problem.budget.kind == "per_layer":
        return int(problem.m * 2**problem.n)
    return sum(count(problem, row) for row in range(len(problem.pools.labels)))
