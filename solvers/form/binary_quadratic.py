"""Selection as a binary quadratic programme, whatever the budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem


@dataclass(frozen=True)
class BinaryQuadratic:
    """`min 1/2 x'Ax - c'x` over binary x (1 = pruned) with a count in every pool.

    `A` is block diagonal, one block for each row of decisions, so it is held as a stack: the
    objective is `sum_b 1/2 x_b' A_b x_b - c_b' x_b`. Pruning moves the weights by `-w`, so a row has
    `A = diag(w) H diag(w)` and `c = g o w`; with one mask shared by all rows these are summed over
    the rows (CBS-S, Yu et al. 2022, with a gradient and with pools).

    Attributes:
        A: `[b, n, n]`, symmetric positive semidefinite.
        c: `[b, n]`.
        labels: `[b, n]` pool of every decision.
        prune: `[pools]` decisions to prune.
        rounding: `[b, n]` with `sum_i rounding_i x_i` a bound on what rounding in A and c can do to
            the objective at x.
    """

    A: Array
    c: Array
    labels: NDArray[np.int64]
    prune: NDArray[np.int64]
    rounding: Array

    @property
    def size(self) -> int:
        """Number of decisions."""
        return self.labels.size

    def value(self, x: Mask) -> float:
        """The objective at decisions `[b, n]`, True where pruned."""
        z = x.astype(np.float64)
        return float(0.5 * np.einsum("bi,bij,bj->", z, self.A, z) - (self.c * z).sum())


def binary_quadratic(problem: SubsetProblem) -> BinaryQuadratic:
    """The binary quadratic programme of a reduced selection problem; its decisions are the mask's.

    Raises:
        ValueError: for a problem whose survivors move.
    """
    if problem.refit:
        raise ValueError("binary_quadratic needs a selection problem, refit=False")
    m, pools, W = problem.m, problem.pools, problem.W
    A = np.stack([W[r][:, None] * problem.hessian.dense(r) * W[r][None, :] for r in range(m)])
    c = np.zeros(W.shape) if problem.G is None else problem.G * W
    size = 0.5 * np.abs(A).sum(axis=2) + np.abs(c)
    if pools.coupled:
        A, c, size = (B.sum(axis=0, keepdims=True) for B in (A, c, size))
    return BinaryQuadratic(A, c, pools.labels, pools.prune, (m + 4) * np.finfo(float).eps * size)
