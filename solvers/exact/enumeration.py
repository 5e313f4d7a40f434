"""Problems of few masks, decided by the cost of every one: where rounding in a search swallows the answer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.allocation import allocate, allocation_value
from solvers.hessian import Array
from solvers.problem import EPS, Mask, SubsetProblem

FEW = 1 << 10
"""Masks of a row that are priced one by one."""
TOGETHER = 1 << 13
"""Masks of all rows that are."""

Stopped = Callable[[], object]


@dataclass(frozen=True)
class Least:
    """The best of some masks.

    Attributes:
        mask: `[rows, n]`, True where pruned.
        value: its cost.
        bound: none of them costs less, rounding included.
    """

    mask: Mask
    value: float
    bound: float


def least_of_rows(
    problem: SubsetProblem, rows: Sequence[int], choices: Iterable[Sequence[int]], stopped: Stopped
) -> Least | None:
    """The best of the choices of columns that rows prune alike; None once stopped.

    Costs are those of `SubsetProblem.refined`, off by rounding and by what a move is short of the best.
    """
    best, value, bound = np.zeros(problem.n, dtype=bool), math.inf, math.inf
    for choice in choices:
        if stopped():
            return None
        pruned = np.zeros(problem.n, dtype=bool)
        pruned[list(choice)] = True
        found = [problem.refined(r, pruned) for r in rows]
        cost = math.fsum(each.cost for each in found)
        error = math.fsum(2.0 * each.excess + 8.0 * EPS * abs(each.cost) for each in found)
        bound = min(bound, cost - error)
        if cost < value:
            best, value = pruned, cost
    return Least(np.tile(best, (len(rows), 1)), value, max(bound, problem.floor))


def least_at(problem: SubsetProblem, row: int, k: int, stopped: Stopped) -> Least | None:
    """The best mask of a row with k entries pruned; None if there are more than `FEW`, or once stopped."""
    if math.comb(len(problem.prunable), k) > FEW:
        return None
    return least_of_rows(problem, [row], itertools.combinations(problem.prunable.tolist(), k), stopped)


def least(problem: SubsetProblem, stopped: Stopped) -> Least | None:
    """The best mask of a problem's budget; None if there are too many to price, or once stopped."""
    if problem.budget.kind == "per_layer":
        shared = least_together([problem], int(problem.pools.prune[0]), stopped)
        return None if shared is None else Least(shared[0][0], shared[1], shared[2])
    pools = problem.pools
    groups = [list(range(problem.m))] if pools.coupled else [[r] for r in range(problem.m)]
    sizes = [count(problem, rows[0]) * len(rows) for rows in groups]
    if max(sizes) > FEW or sum(sizes) > TOGETHER:
        return None
    found = [least_of_rows(problem, rows, choices(problem, rows[0]), stopped) for rows in groups]
    parts = [part for part in found if part is not None]
    if len(parts) < len(found):
        return None
    bound = math.fsum(part.bound for part in parts)
    bound -= 2.0 * EPS * math.fsum(abs(part.bound) for part in parts)
    value = math.fsum(part.value for part in parts)
    return Least(np.concatenate([part.mask for part in parts]), value, max(bound, problem.floor))


def least_together(
    problems: Sequence[SubsetProblem], total: int, stopped: Stopped
) -> tuple[list[Mask], float, float] | None:
    """Masks of problems that prune so many entries together, their value and a bound; or None, as `least`."""
    sizes = [2 ** len(problem.prunable) for problem in problems for _ in range(problem.m)]
    if max(sizes) > FEW or sum(sizes) > TOGETHER:
        return None
    curves: list[list[Least]] = []
    for problem in problems:
        for row in range(problem.m):
            curve = [least_at(problem, row, k, stopped) for k in range(len(problem.prunable) + 1)]
            if any(each is None for each in curve):
                return None
            curves.append([each for each in curve if each is not None])
    values: list[Array] = [np.array([each.value for each in curve]) for curve in curves]
    bounds: list[Array] = [np.array([each.bound for each in curve]) for curve in curves]
    counts: NDArray[np.int64] = allocate(values, total)
    rows = [curve[k].mask for curve, k in zip(curves, counts.tolist(), strict=True)]
    ends = np.cumsum([problem.m for problem in problems])
    masks = [np.concatenate(rows[end - p.m : end]) for end, p in zip(ends.tolist(), problems, strict=True)]
    value = math.fsum(float(curve[k]) for curve, k in zip(values, counts.tolist(), strict=True))
    floor = sum(problem.floor for problem in problems)
    return masks, value, max(allocation_value(bounds, total), floor)


def count(problem: SubsetProblem, row: int) -> int:
    """How many choices a row's pools leave."""
    pools, width = problem.pools, problem.pools.width
    if width > 1:
        return math.comb(int(pools.sizes[0]) // width, int(pools.prune[0]) // width)
    labels = np.unique(pools.labels[row])
    return math.prod(math.comb(int(pools.sizes[p]), int(pools.prune[p])) for p in labels)


def choices(problem: SubsetProblem, row: int) -> Iterator[list[int]]:
    """Every choice of a row's pools, as columns to prune."""
    labels, width = problem.pools.labels[row], problem.pools.width
    if width > 1:
        units = problem.prunable.reshape(-1, width)
        for gone in itertools.combinations(units.tolist(), int(problem.pools.prune[0]) // width):
            yield [i for unit in gone for i in unit]
        return
    sets = [
        itertools.combinations(problem.prunable[labels == p].tolist(), int(problem.pools.prune[p]))
        for p in np.unique(labels)
    ]
    for parts in itertools.product(*sets):
        yield [i for part in parts for i in part]
