"""What a solver gives back: a mask, its value, a bound, and why the search stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.summary import between, summary

if TYPE_CHECKING:
    from solvers.certificate import Certificate
    from solvers.hessian import Array
    from solvers.problem import Mask, SubsetProblem

CLAMP = 1e-9
"""Bounds above the value by less than this, relative to the value and the problem's scale, are rounding."""


class Status(Enum):
    """Why a solver stopped. How good the answer is stands in `Solution.gap`, whatever the status."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    TIME_LIMIT = "time_limit"
    NODE_LIMIT = "node_limit"
    MEMORY_LIMIT = "memory_limit"
    PATIENCE = "patience"
    INTERRUPTED = "interrupted"

    @property
    def remedy(self) -> str:
        """What the status means and what to do about it, in one sentence."""
        return _REMEDIES[self]


_REMEDIES = {
    Status.OPTIMAL: "the gap asked for is proven",
    Status.FEASIBLE: "the solver finished without proving the gap; an exact solver may close it",
    Status.TIME_LIMIT: "the time limit stopped the search; try a larger time_limit",
    Status.NODE_LIMIT: "the node limit stopped the search; try a larger one",
    Status.MEMORY_LIMIT: "the memory limit stopped the search; try a larger memory_limit",
    Status.PATIENCE: "the patience with a search without a time limit ended; try a larger patience, or None",
    Status.INTERRUPTED: "the search was interrupted; its best mask and bound are kept",
}


@dataclass(frozen=True)
class Bounds:
    """An interval that holds the optimum: `lower <= optimum <= upper`; either may be infinite.

    Raises:
        ValueError: if an end is NaN, or they cross.
    """

    lower: float = -math.inf
    upper: float = math.inf

    def __post_init__(self) -> None:
        if not self.lower <= self.upper:
            raise ValueError(f"bounds cross: lower {self.lower!r}, upper {self.upper!r}")

    @property
    def gap(self) -> float:
        """`(upper - lower) / |upper|`; 0 where they meet, infinite where nothing is known."""
        if self.lower == self.upper:
            return 0.0
        if not math.isfinite(self.lower) or not math.isfinite(self.upper) or self.upper == 0:
            return math.inf
        return (self.upper - self.lower) / abs(self.upper)


@dataclass(frozen=True)
class Progress:
    """One line of a search's history.

    Attributes:
        seconds: since the start.
        bounds: the optimum's interval at that time.
        nodes: nodes, iterations or moves so far; their unit is the solver's.
        mask: the incumbent, or None.
    """

    seconds: float
    bounds: Bounds
    nodes: int = 0
    mask: Mask | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class RowBounds:
    """What is proven of every row, where rows have budgets of their own.

    Attributes:
        bound: `[m]` no mask of the row's budget costs that row less; their sum bounds the whole.
        proven: `[m]` whether the search closed the row, where rows were searched one by one; else None.
        nodes: `[m]` nodes that this took, or None.
        seconds: `[m]` wall time that it took, or None.
    """

    bound: Array
    proven: Mask | None = None
    nodes: NDArray[np.int64] | None = None
    seconds: Array | None = None

    def __repr__(self) -> str:
        return (
            f"RowBounds({len(self.bound)} rows, bounds from {self.bound.min():.7g} to {self.bound.max():.7g})"
        )


@dataclass(frozen=True)
class Solution:
    """A mask with its value and bound. Build it with `judge`, which trusts the data, not the solver.

    Attributes:
        mask: `[m, n]` bool, True where pruned.
        weights: `[m, n]` weights after pruning.
        value: loss increase, recomputed from the problem.
        bound: no mask of the budget has a smaller loss increase; may be minus infinity.
        status: why the solver stopped; `OPTIMAL` exactly when `gap` is at most the gap asked for.
        seconds: wall time of the solve.
        solver: name of the solver.
        stats: counts and choices of the solver, and every repair of the data; for display only.
        trace: the incumbent and bound over time.
        certificate: `solvers.certificate.Certificate`, a proof that a checker can read, or None.
        rows: bounds of every row, where the solver has them; else None.
    """

    mask: Mask
    weights: Array
    value: float
    bound: float
    status: Status
    seconds: float
    solver: str
    stats: Mapping[str, Any] = field(default_factory=dict)
    trace: Sequence[Progress] = ()
    certificate: Certificate | None = None
    rows: RowBounds | None = None

    def __repr__(self) -> str:
        return summary(
            f"Solution by {self.solver}: {self.status.value}, {self.status.remedy}",
            between(self.value, self.bound, self.gap),
            f"{int(self.mask.sum())} of {self.mask.size} weights pruned, {self.seconds:.2f} s",
        )

    @property
    def bounds(self) -> Bounds:
        """The interval `[bound, value]` that holds the optimum."""
        return Bounds(self.bound, self.value)

    @property
    def gap(self) -> float:
        """`(value - bound) / |value|`, 0 if they are equal."""
        return self.bounds.gap

    @classmethod
    def judge(
        cls,
        problem: SubsetProblem,
        mask: Mask,
        bound: float,
        reason: Status,
        *,
        gap: float,
        seconds: float,
        solver: str,
        stats: Mapping[str, Any] | None = None,
        trace: Sequence[Progress] = (),
        certificate: Certificate | None = None,
        rows: RowBounds | None = None,
    ) -> Solution:
        """Recompute a mask's value from the problem and set the status that the gap deserves.

        Args:
            problem: the problem that was asked.
            mask: the mask found.
            bound: the solver's lower bound, or minus infinity.
            reason: why the solver stopped.
            gap: the gap asked for.
            seconds: wall time.
            solver: name.
            stats: see the class.
            trace: see the class.
            certificate: see the class.
            rows: see the class.

        Raises:
            ValueError: if the mask misses the budget.
            ArithmeticError: if the bound lies above the value by more than rounding.
        """
        value = problem.value(mask)
        check_bounds(bound, value, problem.scale, solver)
        bound = min(bound, value)
        proven = closes(bound, value, gap)
        if proven or reason is Status.OPTIMAL:
            reason = Status.OPTIMAL if proven else Status.FEASIBLE
        return cls(
            problem.check(mask).copy(), problem.weights(mask), value, bound, reason, seconds, solver,
            dict(stats or {}), tuple(trace), certificate, rows,
        )  # fmt: skip


def closes(bound: float, value: float, gap: float) -> bool:
    """Whether a bound proves a value to a gap; one above it, by rounding, counts as equal."""
    return Bounds(min(bound, value), value).gap <= gap


def check_bounds(bound: ArrayLike, value: ArrayLike, scale: float, who: str = "search") -> None:
    """Raise ArithmeticError where a bound is NaN, or above a mask's value by more than rounding."""
    lower, upper = np.asarray(bound), np.asarray(value)
    wrong = np.argwhere(~(lower <= upper + CLAMP * (scale + np.abs(upper))))
    if len(wrong):
        at = tuple(wrong[0])
        low, high = float(lower[at]), float(upper[at])
        raise ArithmeticError(f"{who}: bound {low!r} lies above the value {high!r} of a mask")
