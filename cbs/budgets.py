"""Budgets of layers: laid out in one row, and met by the entries of smallest score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from solvers import Budget
from solvers.hessian import Array
from solvers.problem import Mask


def flat_budget(budget: Budget, m: int, n: int) -> Budget:
    """A layer's budget on its weights laid out as one row of `m * n`, row after row.

    Raises:
        ValueError: for column budgets, which have no such form.
    """
    if budget.kind == "per_row":
        if isinstance(budget.prune, int):
            return Budget.n_of_m(n - budget.prune, n)
        raise ValueError("rows of different counts can't be laid out in one")
    if budget.kind == "columns":
        raise ValueError("budget 'columns' couples the rows and can't be laid out in one")
    return budget


def smallest(scores: Sequence[Array], budgets: Sequence[Budget] | int) -> list[Mask]:
    """Masks that prune the entries of smallest score.

    Args:
        scores: `[m, n]` of every layer. For column budgets a column's score is the sum of its entries.
        budgets: a budget for every layer, or the number of entries that all layers prune together.
    """
    if isinstance(budgets, int):
        joined = np.concatenate([s.ravel() for s in scores])[None, :]
        chosen = Budget.per_layer(budgets).laid_over(1, joined.size).smallest(joined)[0]
        parts = np.split(chosen, np.cumsum([s.size for s in scores])[:-1])
        return [part.reshape(s.shape) for part, s in zip(parts, scores, strict=True)]
    masks: list[NDArray[np.bool_]] = []
    for s, budget in zip(scores, budgets, strict=True):
        pools = budget.laid_over(*s.shape)
        ranked = s.sum(axis=0, keepdims=True) if pools.coupled else s
        masks.append(pools.expand(pools.smallest(ranked), len(s)))
    return masks
