"""Independent pieces of a problem as problems of their own, and what is known of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from solvers.problem import Mask, SubsetProblem


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


def independent(problem: SubsetProblem) -> list[tuple[slice, SubsetProblem]]:
    """The pieces of a reduced problem that share no pool: one a row, or the whole.

    Returns:
        Their rows in the problem, and each as a problem of its own.
    """
    if problem.budget.kind in ("per_layer", "columns") or problem.m == 1:
        return [(slice(0, problem.m), problem)]
    return [(slice(r, r + 1), problem.row(r)) for r in range(problem.m)]
