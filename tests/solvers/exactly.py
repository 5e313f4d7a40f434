"""Costs in rational arithmetic, without rounding: what the checker's statements are tested against."""

from fractions import Fraction
from functools import cache

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
    return [exact_row_value(problem, r, mask[r], exact_hessian(problem, r)) for r in range(problem.m)]


def exact_row_value(problem, r, pruned, H):
    """One row's cost of its part of a mask, at its exact curvature."""
    w = fractions(problem.W[r])
    g = fractions(np.zeros(problem.n) if problem.G is None else problem.G[r])
    D = np.where(pruned, -w, Fraction(0))
    moving = ~pruned if problem.refit else np.isin(np.arange(problem.n), problem.movable)
    on = np.flatnonzero(moving)
    if len(on):
        D[on] = solve_exactly(H[np.ix_(on, on)], -(g + H @ D)[on])
    return g @ D + D @ H @ D / 2


def exact_optimum(problem):
    """The least cost of a mask of the budget, and a mask that has it."""
    curvatures = [exact_hessian(problem, r) for r in range(problem.m)]

    @cache
    def cost(r, bits):
        return exact_row_value(problem, r, np.frombuffer(bits, bool), curvatures[r])

    masks = list(all_masks(problem))
    values = [sum(cost(r, row.tobytes()) for r, row in enumerate(mask)) for mask in masks]
    best = min(range(len(masks)), key=values.__getitem__)
    return values[best], masks[best]
