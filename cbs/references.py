"""Certified lower bounds of the joint problem, which every method's layer objective is held against."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from cbs.curvature.base import Gram
from cbs.curvature.output import row_scales
from cbs.network.network import Network
from cbs.quadratic import Diagonal
from cbs.watch import Watch
from solvers import Budget, Solution, SubsetProblem
from solvers.allocation import allocation_value
from solvers.bounds.curves import lower_curves
from solvers.form.reduction import reduce
from solvers.hessian import Array
from solvers.problem import Mask

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
        self._relaxed: set[tuple[int, Budget]] = set()
        self._of_rows: dict[tuple[int, Budget, bytes], float] = {}
        self._lower: list[Array] | None = None

    def learn(self, index: int, problem: SubsetProblem, solution: Solution) -> None:
        """Take in what a solver proved about a layer's problem."""
        found = LayerBound(solution.bound, None if solution.rows is None else solution.rows.bound)
        if RELAXATION in (solution.solver, *solution.stats.get("ran", ())):
            self._relaxed.add((index, problem.budget))
        self.recall(index, problem.budget, found)

    def recall(self, index: int, budget: Budget, found: LayerBound) -> None:
        """Take in a bound of a layer that was proven before."""
        self._known[index, budget] = self.known(index, budget).join(found)

    def known(self, index: int, budget: Budget) -> LayerBound:
        """The best bound known of a layer, without computing one."""
        return self._known.get((index, budget), LayerBound())

    def certify(
        self, index: int, budget: Budget, watch: Watch, *, value: float, by_curves: bool, share: float = 1.0
    ) -> None:
        """Find a bound of a layer, unless one proves the value or all is done that can be done for one.

        Args:
            index: which layer.
            budget: of the layer.
            watch: of the run that asks.
            value: of the run's mask.
            by_curves: take it from the lower curves of the rows, whose numbers pruned `budget` gives;
                else from the relaxation.
            share: of the time that the run has left.
        """
        bound = self.known(index, budget).bound
        if math.isfinite(bound) and value - bound <= watch.control.gap * abs(value):
            return
        if by_curves:
            lower, counts = self._curves(watch)[index], np.asarray(budget.prune)
            rows = lower[np.arange(len(lower)), counts]
            self._known[index, budget] = self.known(index, budget).join(LayerBound(rows=rows))
        else:
            model = self.network(Gram())[index]
            if isinstance(model.H, Diagonal):
                from cbs.selection.separable import separable_bound

                self.recall(index, budget, separable_bound(model, budget))
            else:
                self.relax(index, model.problem(budget), watch, share)

    def relax(self, index: int, problem: SubsetProblem, watch: Watch, share: float) -> None:
        """Learn the relaxation's bound of a layer's problem, once.

        Args:
            index: which layer.
            problem: the layer's.
            watch: of the run that asks.
            share: of the time that the run has left.
        """
        if (index, problem.budget) in self._relaxed:
            return
        name = self.network.layers[index].name
        solution = watch.solve(problem, RELAXATION, stage="certify", layer=name, index=index, share=share)
        self.learn(index, problem, solution)

    def of_rows(self, index: int, budget: Budget, live: Mask) -> float:
        """The best bound known of some rows of a layer, `live [m]`, under a budget of columns."""
        return self._of_rows.get((index, budget, live.tobytes()), -math.inf)

    def learn_rows(self, index: int, budget: Budget, live: Mask, bound: float) -> None:
        """Take in a bound of some rows of a layer under a budget of columns, whatever survivors become."""
        known = max(self.of_rows(index, budget, live), bound, 0.0)
        self._of_rows[index, budget, live.tobytes()] = known

    def relax_rows(
        self, index: int, budget: Budget, live: Mask, watch: Watch, *, value: float, share: float
    ) -> None:
        """Find that bound by the relaxation, unless one proves the value."""
        bound = self.of_rows(index, budget, live)
        if math.isfinite(bound) and value - bound <= watch.control.gap * abs(value):
            return
        problem = self.network(Gram())[index].rows(live).problem(budget)
        name = self.network.layers[index].name
        solution = watch.solve(problem, RELAXATION, stage="certify", layer=name, index=index, share=share)
        self.learn_rows(index, budget, live, solution.bound)

    def _curves(self, watch: Watch) -> list[Array]:
        """Every layer's lower curves; those that a limit cut short are found anew when there is time."""
        if self._lower is None:
            curves = network_lower_curves(self.network, watch.curving)
            if watch.control.stopped():
                return curves
            self._lower = curves
        return self._lower

    def learn_total(self, count: int, bound: float) -> None:
        """Take in a bound on the scaled objective of the network with `count` weights pruned."""
        self._totals[count] = max(bound, self._totals.get(count, 0.0))

    def total(self, count: int, watch: Watch, value: float) -> float:
        """A bound on the scaled objective of the network when all layers share one budget.

        What a search has proven; or, if that does not prove the value, the better of it and
        `min sum_r scale_r lower_r(k_r)` over all `k` with `sum_r k_r = count`.
        """
        known = self._totals.get(count, 0.0)
        if value - known <= watch.control.gap * abs(value):
            return known
        curves = [
            scale * np.maximum(row, 0.0)
            for scales, lower in zip(row_scales(self.network), self._curves(watch), strict=True)
            for scale, row in zip(scales, lower, strict=True)
        ]
        return max(known, float(allocation_value(curves, count)))


def network_lower_curves(
    network: Network, stopped: Callable[[int], object] = lambda index: None
) -> list[Array]:
    """Certified lower bounds of every layer's rows at every number pruned, `[m, n + 1]`, unscaled.

    Args:
        network: the dense network.
        stopped: polled often with the place of the layer at work; a true answer leaves bounds as they are, of
            less worth.
    """
    found = []
    for i, model in enumerate(network(Gram())):
        if isinstance(model.H, Diagonal):
            from cbs.selection.separable import separable_curves

            found.append(separable_curves(model).values * (1 - 4 * model.n * np.finfo(float).eps))
            continue
        reduction = reduce(model.problem(Budget.per_layer(0)))
        W, H = reduction.problem.W, reduction.problem.hessian
        curves = lower_curves(W, H, device=network.device, stopped=partial(stopped, i))
        found.append(curves - reduction.margin)
    return found
