"""Try every mask: the oracle that other solvers are tested against."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.control import Control
from solvers.problem import Mask, SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome, Solver


@dataclass(frozen=True)
class BruteForce(Solver):
    """Enumerate the masks of the budget, independent groups of pools separately.

    Rows are independent, so pools that share no row are enumerated apart from each other.

    Attributes:
        limit: largest number of masks it will try.
    """

    limit: int = 2_000_000

    name: ClassVar[str] = "brute-force"
    summary: ClassVar[str] = "every mask in turn; tiny problems, the oracle of the tests"
    proves: ClassVar[str] = "optimality"

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        count = sum(_count(problem, pools) for pools in _groups(problem))
        if count > self.limit:
            return f"it has {count:.3g} masks, more than the limit of {self.limit:.3g}"
        return None

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        pools = problem.pools
        best = pools.smallest(np.zeros(pools.labels.shape))
        tried, reason = 0, Status.OPTIMAL
        for group in _groups(problem):
            rows = np.unique(np.nonzero(np.isin(pools.labels, group))[0]) if not pools.coupled else None
            current, lowest = best.copy(), math.inf
            for choice in _choices(problem, group):
                current.ravel()[np.isin(pools.labels.ravel(), group)] = False
                current.ravel()[choice] = True
                values = problem.row_values(pools.expand(current, problem.m))
                value = float(values.sum() if rows is None else values[rows].sum())
                tried += 1
                if value < lowest:
                    best, lowest = current.copy(), value
                if tried % 1024 == 0 and (stop := control.stopped()):
                    reason = stop
                    break
            if reason is not Status.OPTIMAL:
                break
        mask: Mask = pools.expand(best, problem.m)
        value = problem.value(mask)
        rounding = 1e-12 * problem.scale
        bound = value - rounding if reason is Status.OPTIMAL else -math.inf
        control.report(value, bound, tried, mask)
        return Outcome(mask, bound, reason, {"masks": tried})


def _groups(problem: SubsetProblem) -> list[NDArray[np.int64]]:
    """Pools that must be enumerated together: all of one row, or all when rows share a pool."""
    pools = problem.pools
    if pools.coupled or problem.budget.kind == "per_layer":
        return [np.arange(len(pools.prune))]
    return [np.unique(row) for row in pools.labels]


def _count(problem: SubsetProblem, group: NDArray[np.int64]) -> int:
    sizes, prune = problem.pools.sizes[group], problem.pools.prune[group]
    return math.prod(math.comb(int(s), int(k)) for s, k in zip(sizes, prune, strict=True))


def _choices(problem: SubsetProblem, group: NDArray[np.int64]) -> Iterator[list[int]]:
    flat = problem.pools.labels.ravel()
    sets = [
        itertools.combinations(np.flatnonzero(flat == p).tolist(), int(problem.pools.prune[p])) for p in group
    ]
    for parts in itertools.product(*sets):
        yield [i for part in parts for i in part]
