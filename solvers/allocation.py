"""Sharing a budget among rows, exactly: `min sum_r f_r(k_r)` subject to `sum_r k_r = K`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.hessian import Array
from solvers.runtime.compiled import njit

EPS = float(np.finfo(float).eps)
EXACT_WORK = 4e9
"""Largest number of additions the dynamic programme may take before convex envelopes replace it."""


def allocate(curves: Sequence[Array], total: int, work: float = math.inf) -> NDArray[np.int64]:
    """Counts `k_r` with `sum_r k_r = total` that minimise `sum_r curves[r][k_r]`.

    Exact by dynamic programming (Bellman 1957) up to so much work; beyond it by marginal analysis on
    the curves' lower convex envelopes, which is optimal for convex curves, and which may land on an
    infinite entry between two finite ones.

    Args:
        curves: `curves[r][k]` is the cost of taking k from row r, `k = 0 .. len(curves[r]) - 1`;
            finite, or infinite where k can't be had.
        total: how many to take in all.
        work: additions that the dynamic programme may take, if that is less than `EXACT_WORK`.

    Raises:
        ValueError: if there are not `total` to take.
    """
    if not exactly(curves, total, work):
        return _by_envelope(curves, total)
    best = pool(curves, total)
    if not np.isfinite(best.cost[total]):
        raise ValueError(f"no allocation of {total} has a finite cost")
    return best.counts(total)


def allocation_value(curves: Sequence[Array], total: int, work: float = math.inf) -> float:
    """A lower bound on `min sum_r curves[r][k_r]`; the minimum itself up to so much work.

    Beyond it, the Lagrangian bound `max_t sum_r min_k (curves[r][k] - t k) + t total`. Sums are
    lowered by what rounding can add to them.
    """
    if exactly(curves, total, work):
        best = pool(curves, total)
        return lowered(float(best.cost[total]), best)
    magnitude = float(sum(np.abs(c[np.isfinite(c)]).max(initial=0.0) for c in curves))
    rounding = 4 * len(curves) * EPS * magnitude
    slopes = np.sort(np.concatenate([np.diff(_envelope(c)) for c in curves]))
    t = float(slopes[min(max(total - 1, 0), len(slopes) - 1)])
    value = sum(float((c - t * np.arange(len(c))).min()) for c in curves) + t * total
    return value - rounding - 4 * len(curves) * EPS * abs(t) * total


@dataclass(frozen=True)
class Pool:
    """Rows that were allocated to for every total at once, by `pool`; to others they are one row.

    Attributes:
        cost: `[min(total, entries) + 1]` least cost of taking so many from all of them.
        fall: by how much each row can be negative, summed; what rounding adds to a cost is relative to the
            cost and to this, and not to what the least cost leaves out.
        choices: of every row, how many it gives for every total of the rows so far.
    """

    cost: Array
    fall: float
    choices: tuple[NDArray[np.int32], ...]

    def counts(self, taken: int) -> NDArray[np.int64]:
        """`[rows]` how many each row gives when `taken` are taken at the least cost."""
        counts = np.zeros(len(self.choices), np.int64)
        for r in range(len(self.choices) - 1, -1, -1):
            counts[r] = self.choices[r][taken]
            taken -= int(counts[r])
        return counts


def pool(curves: Sequence[Array], total: int) -> Pool:
    """The dynamic programme of `allocate` over some rows, for all totals up to `total`.

    Args:
        curves: as in `allocate`.
        total: the most that will be taken.
    """
    sizes = [len(curve) - 1 for curve in curves]
    best = np.full(total + 1, np.inf)
    best[0] = 0.0
    reach, choices = 0, []
    for curve, size in zip(curves, sizes, strict=True):
        best, choice = _fold(best, np.ascontiguousarray(curve, dtype=np.float64), reach, total)
        reach = min(total, reach + size)
        choices.append(choice)
    within = [curve[: total + 1] for curve in curves]
    fall = math.fsum(max(0.0, -float(c[np.isfinite(c)].min(initial=0.0))) for c in within)
    return Pool(best[: min(total, sum(sizes)) + 1], fall, tuple(choices))


def lowered(cost: float, *pools: Pool) -> float:
    """A least cost less what rounding can have added to it.

    A sum of terms t is off by `rows eps sum |t|` at most, and `sum |t| = sum t + 2 sum max(-t, 0)`.

    Args:
        cost: of the first of the pools.
        pools: itself, and what it has for rows.
    """
    if not math.isfinite(cost):
        return cost
    rows = sum(len(each.choices) for each in pools)
    return cost - 4 * rows * EPS * (abs(cost) + 2.0 * math.fsum(each.fall for each in pools))


def exactly(curves: Sequence[Array], total: int, work: float = math.inf) -> bool:
    """Whether the dynamic programme takes no more additions than `EXACT_WORK`, and `work`.

    Raises:
        ValueError: if there are not `total` to take.
    """
    return allocation_work(curves, total) <= min(EXACT_WORK, work)


def allocation_work(curves: Sequence[Array], total: int) -> float:
    """Additions that the dynamic programme takes.

    Raises:
        ValueError: if there are not `total` to take.
    """
    sizes = np.array([len(curve) - 1 for curve in curves], np.int64)
    if not 0 <= total <= sizes.sum():
        raise ValueError(f"total is {total}, but the rows have {sizes.sum()} entries")
    reach = np.minimum(np.cumsum(sizes), total)
    return float((reach.astype(float) * sizes).sum())


@njit(cache=True, nogil=True)
def _fold(best, curve, reach, total):  # type: ignore[no-untyped-def]
    """`out[K] = min_k best[K - k] + curve[k]` with the smallest minimising k."""
    out = np.full(total + 1, np.inf)
    choice = np.zeros(total + 1, np.int32)
    for k in range(min(len(curve) - 1, total) + 1):
        cost = curve[k]
        for K in range(k, min(reach + k, total) + 1):
            value = best[K - k] + cost
            if value < out[K]:
                out[K] = value
                choice[K] = k
    return out, choice


def _envelope(curve: Array) -> Array:
    """The lower convex envelope of a curve, at every k."""
    k = np.flatnonzero(np.isfinite(curve))
    hull: list[int] = []
    for i in k.tolist():
        while len(hull) > 1 and _above(curve, hull[-2], hull[-1], i):
            hull.pop()
        hull.append(i)
    return np.interp(np.arange(len(curve)), hull, curve[hull])


def _above(curve: Array, a: int, b: int, c: int) -> bool:
    return bool((curve[b] - curve[a]) * (c - a) >= (curve[c] - curve[a]) * (b - a))


def _by_envelope(curves: Sequence[Array], total: int) -> NDArray[np.int64]:
    steps = [np.diff(_envelope(c)) for c in curves]
    for curve, step in zip(curves, steps, strict=True):
        step[np.flatnonzero(np.isfinite(curve))[-1] :] = np.inf
    row = np.repeat(np.arange(len(curves)), [len(s) for s in steps])
    taken = np.argsort(np.concatenate(steps), kind="stable")[:total]
    return np.bincount(row[taken], minlength=len(curves)).astype(np.int64)
