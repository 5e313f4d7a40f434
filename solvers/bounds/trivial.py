"""What is known of an optimum before any work."""

from __future__ import annotations

import numpy as np

from solvers.problem import SubsetProblem

ROUNDING = 1e-12
"""Share of a problem's scale that rounding may have moved a cost by; see also `solvers.hessian`."""


def trivial_bound(problem: SubsetProblem) -> float:
    """What no mask costs less than, from signs alone; exact where only one mask meets the budget.

    A joint cost is at least 0. A selection cost is at least minus the `k` largest `g_i w_i`, less what
    a Hessian that is semidefinite up to rounding may hide.
    """
    pools = problem.pools
    if ((pools.prune == 0) | (pools.keep == 0)).all():
        value = problem.value(pools.expand(pools.smallest(np.zeros(pools.labels.shape)), problem.m))
        return value - ROUNDING * problem.scale if pools.prune.any() else 0.0
    return sign_bound(problem)


def sign_bound(problem: SubsetProblem) -> float:
    """`trivial_bound` without the cost of a mask: what a search that had no time falls back on."""
    if problem.refit:
        return 0.0
    size = 0.5 * float((problem.hessian.diagonal().max() * problem.W**2).sum())
    if problem.G is None:
        return float(-ROUNDING * problem.n * size)
    pools = problem.pools
    scores = -problem.G * problem.W
    if pools.coupled:
        scores = scores.sum(axis=0, keepdims=True)
    least = float(scores[pools.smallest(scores)].sum())
    return float(least - ROUNDING * (problem.n * size + np.abs(problem.G * problem.W).sum()))
