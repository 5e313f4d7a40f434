"""Certified lower bounds of the joint problem, which every method's layer objective is held against."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cbs.network import Network
from cbs.watch import Watch
from solvers import Budget, Solution, SubsetProblem
from solvers.allocation import allocation_value
from solvers.hessian import Array
from solvers.reduction import reduce

RELAXATION = "relaxation"
"""The solver that bounds a problem for methods that prove nothing themselves."""


@dataclass(frozen=True)
class LayerBound:
    """No mask of the budget, with any weights for the survivors, has a smaller layer objective.

    Attributes:
        bound: of the layer; minus infinity when nothing is known.
        rows: `[m]` of every row, where rows have budgets of their own; else None.
    """

    bound: float = -math.inf
    rows: Array | None = None

    def join(self, other: LayerBound) -> LayerBound:
        """The better of the two, row by row. Objectives are sums of squares: no bound is negative."""
        rows = self.rows
        if other.rows is not None:
            rows = other.rows if rows is None else np.maximum(rows, other.rows)
        bound = max(self.bound, other.bound)
        if rows is not None:
            rows = np.maximum(rows, 0.0)
            bound = max(bound, float(rows.sum()) * (1 - len(rows) * np.finfo(float).eps))
        return LayerBound(float(max(bound, 0.0)) if math.isfinite(bound) else bound, rows)


class References:
    """The best bounds known for a network's layers, under every budget asked so far."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._known: dict[tuple[int, Budget], LayerBound] = {}
        self._totals: dict[int, float] = {}

    def learn(self, index: int, problem: SubsetProblem, solution: Solution) -> None:
        """Take in what a solver proved about a layer's problem."""
        found = LayerBound(solution.bound, _row_bounds(problem, solution))
        self.recall(index, problem.budget, found)

    def recall(self, index: int, budget: Budget, found: LayerBound) -> None:
        """Take in a bound of a layer that was proven before."""
        self._known[index, budget] = self.known(index, budget).join(found)

    def known(self, index: int, budget: Budget) -> LayerBound:
        """The best bound known of a layer, without computing one."""
        return self._known.get((index, budget), LayerBound())

    def certify(self, index: int, budget: Budget, watch: Watch, *, by_curves: bool) -> None:
        """Find a bound of a layer, without time limit, unless one is known.

        Args:
            index: which layer.
            budget: of the layer.
            watch: of the run that asks.
            by_curves: take it from the lower curves of the rows, whose numbers pruned `budget` gives;
                else from the relaxation.
        """
        if math.isfinite(self.known(index, budget).bound):
            return
        if by_curves:
            lower, counts = self.network.lower_curves[index], np.asarray(budget.prune)
            rows = lower[np.arange(len(lower)), counts]
            self._known[index, budget] = self.known(index, budget).join(LayerBound(rows=rows))
        else:
            objective = self.network.objectives[index]
            problem = objective.problem(budget)
            solution = watch.solve(
                problem, RELAXATION, stage="certify", layer=objective.name, index=index, share=None
            )
            self.learn(index, problem, solution)

    def learn_total(self, count: int, bound: float) -> None:
        """Take in a bound on the scaled objective of the network with `count` weights pruned."""
        self._totals[count] = max(bound, self._totals.get(count, 0.0))

    def total(self, count: int) -> float:
        """A bound on the scaled objective of the network when all layers share one budget.

        What a search has proven, or `min sum_r scale_r lower_r(k_r)` over all `k` with `sum_r k_r = count`.
        """
        if count in self._totals:
            return self._totals[count]
        curves = [
            scale * np.maximum(row, 0.0)
            for scales, lower in zip(self.network.scales, self.network.lower_curves, strict=True)
            for scale, row in zip(scales, lower, strict=True)
        ]
        return max(0.0, float(allocation_value(curves, count)))


def _row_bounds(problem: SubsetProblem, solution: Solution) -> Array | None:
    rows = solution.stats.get("rows")
    if rows is None:
        return None
    return np.array([row["bound"] for row in rows]) - reduce(problem).margin
