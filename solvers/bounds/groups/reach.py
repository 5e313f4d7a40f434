"""How far a positive definite matrix may go along a change: Lanczos' method on its factor."""

from __future__ import annotations

import numpy as np
from scipy.linalg import blas, eigh_tridiagonal

from solvers.hessian import Array

STEPS = 30
"""Of Lanczos' method at most."""
SETTLED = 0.02
"""Relative change of what is found from one step to the next but two at which it is near enough."""


def reach(factor: Array, change: Array) -> float:
    """About the largest r with `A + r change` positive semidefinite, or a little more; infinite if all are.

    With `A = C C'`, it is one over the largest eigenvalue of `-C^-1 change C^-T`, which Lanczos' method
    approaches from below.

    Args:
        factor: `[n, n]` with C in its lower half.
        change: `[n, n]` symmetric.
    """
    n = len(factor)
    vectors = np.empty((min(n, STEPS) + 1, n))
    first = np.random.default_rng(0).standard_normal(n)
    vectors[0] = first / np.linalg.norm(first)
    diagonal: list[float] = []
    beside: list[float] = []
    found = [0.0, 0.0]
    for k in range(min(n, STEPS)):
        y = change @ blas.dtrsv(factor, vectors[k], lower=1, trans=1)
        y = -blas.dtrsv(factor, y, lower=1)
        diagonal.append(float(y @ vectors[k]))
        for _ in range(2):
            y -= (vectors[: k + 1] @ y) @ vectors[: k + 1]
        top = eigh_tridiagonal(diagonal, beside, eigvals_only=True, select="i", select_range=(k, k))
        found.append(float(top[0]))
        size = float(np.linalg.norm(y))
        if size <= 1e-12 * abs(found[-1]) or (k > 3 and found[-1] - found[-3] <= SETTLED * found[-1]):
            break
        beside.append(size)
        vectors[k + 1] = y / size
    return np.inf if found[-1] <= 0.0 else 1.0 / found[-1]
