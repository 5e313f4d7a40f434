"""Models in which weights do not interact (separable ones): the best mask is a sort, and known to be best.

With a diagonal curvature `1/2 sum_q h_q D_q^2` no survivor gains by moving, so a mask costs `1/2 h_q w_q^2`
summed over what it prunes: least where every pool of the budget prunes its smallest. That is the joint
problem and the selection problem alike, of an Embedding in the first place, see `cbs.curvature.counts`.
"""

from __future__ import annotations

import numpy as np

from cbs.budgets import smallest
from cbs.quadratic import Diagonal, Quadratic
from cbs.references import LayerBound
from cbs.selection.base import Choice
from solvers import Budget
from solvers.greedy.curves import GreedyCurves
from solvers.hessian import Array

NAME = "separable"
"""What a result calls it, where solvers have names."""


def costs(model: Quadratic) -> Array:
    """`[m, n]` what each weight of a separable model costs, `1/2 h w^2`."""
    assert isinstance(model.H, Diagonal)
    return np.asarray(0.5 * model.H.values * np.square(model.W[:, : model.n]))


def separable(model: Quadratic, budget: Budget) -> Choice:
    """The best mask of a separable model, in which what was pruned before stays pruned."""
    (earlier,) = model.earlier
    masks = smallest([np.where(earlier, -np.inf, costs(model))], [budget])
    return Choice(model, masks, NAME)


def separable_bound(model: Quadratic, budget: Budget) -> LayerBound:
    """What no mask of a budget is below: the least cost, less what rounding may have added to it."""
    cost = costs(model)
    (mask,) = smallest([cost], [budget])
    rows = np.where(mask, cost, 0.0).sum(axis=1) * (1 - 4 * model.n * np.finfo(float).eps)
    if budget.kind in ("per_row", "n_of_m"):
        return LayerBound(rows=rows)
    return LayerBound(float(rows.sum()) * (1 - 4 * len(rows) * np.finfo(float).eps))


def separable_curves(model: Quadratic) -> GreedyCurves:
    """What every row of a separable model costs at every count, and the order in which its weights go."""
    (earlier,) = model.earlier
    cost = costs(model)
    order = np.argsort(np.where(earlier, -np.inf, cost), axis=1, kind="stable")
    values = np.zeros((model.W.shape[0], model.n + 1))
    np.cumsum(np.take_along_axis(cost, order, axis=1), axis=1, out=values[:, 1:])
    return GreedyCurves(values, order)
