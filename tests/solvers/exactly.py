"""Costs in rational arithmetic, without rounding: what the checker's statements are tested against."""

from fractions import Fraction

import numpy as np

from solvers import FactorHessian
from tests.solvers.oracles import _solve_exactly as solve_exactly
from tests.solvers.oracles import all_masks, fractions


def exact_hessian(problem, row):
    """A row's curvature; a factor's is `X'X / N + damping I` without rounding."""
    if not isinstance(problem.hessian, FactorHessian):
        return fractions(problem.hessian.dense(row))
    X = fractions(problem.hessian.X)
    return X.T @ X / Fraction(len(X)) + Fraction(problem.hessian.damping) * fractions(np.eye(problem.n))


def exact_row_values(problem, mask):
    """Every row's cost of a mask, with the best moves of what may move."""
    found = []
    for r in range(problem.m):
        H, w = exact_hessian(problem, r), fractions(problem.W[r])
        g = fractions(np.zeros(problem.n) if problem.G is None else problem.G[r])
        D = np.where(mask[r], -w, Fraction(0))
        moving = ~mask[r] if problem.refit else np.isin(np.arange(problem.n), problem.movable)
        on = np.flatnonzero(moving)
        if len(on):
            D[on] = solve_exactly(H[np.ix_(on, on)], -(g + H @ D)[on])
        found.append(g @ D + D @ H @ D / 2)
    return found


def exact_optimum(problem):
    """The least cost of a mask of the budget, and a mask that has it."""
    masks = list(all_masks(problem))
    values = [sum(exact_row_values(problem, mask)) for mask in masks]
    best = min(range(len(masks)), key=values.__getitem__)
    return values[best], masks[best]
