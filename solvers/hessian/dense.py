"""Curvature kept as matrices: one for all rows, or one a row."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from solvers.hessian.base import Array, Hessian, Index, readonly


class DenseHessian(Hessian):
    """One matrix `[n, n]` for all rows."""

    def __init__(self, H: ArrayLike) -> None:
        self.H = readonly(_symmetric(H))
        self.n = self.H.shape[0]
        self.rows = None

    def dense(self, row: int) -> Array:
        """The shared matrix, whatever the row."""
        return self.H

    def diagonal(self) -> Array:
        """`[n]` diagonal."""
        return np.array(np.diagonal(self.H))

    def matmul(self, D: Array) -> Array:
        """`D H`."""
        return np.asarray(D @ self.H)

    def select(self, columns: Index) -> DenseHessian:
        """The sub-block on `columns`."""
        return DenseHessian(self.H[np.ix_(columns, columns)])


class StackedHessian(Hessian):
    """A matrix for every row: `[m, n, n]`."""

    def __init__(self, H: ArrayLike) -> None:
        self.H = readonly(_symmetric(H))
        self.rows, self.n = self.H.shape[:2]

    def dense(self, row: int) -> Array:
        """The matrix of `row`."""
        return np.asarray(self.H[row])

    def diagonal(self) -> Array:
        """`[m, n]` diagonals."""
        return np.array(np.diagonal(self.H, axis1=1, axis2=2))

    def matmul(self, D: Array) -> Array:
        """Row r is `H_r D_r`."""
        return np.asarray(np.einsum("rij,rj->ri", self.H, D))

    def select(self, columns: Index) -> StackedHessian:
        """The sub-blocks on `columns`."""
        return StackedHessian(self.H[:, columns[:, None], columns[None, :]])


def _symmetric(H: ArrayLike) -> Array:
    A = np.asarray(H, dtype=np.float64)
    return 0.5 * (A + A.swapaxes(-1, -2))
