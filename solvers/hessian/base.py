"""What solvers ask of a curvature, and what every kind of it can do by its dense matrix."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from solvers.hessian.doubled import multiply
from solvers.hessian.lapack import solve_definite

Array = NDArray[np.float64]
Index = NDArray[np.int64]

FORM_BYTES = 1 << 29
"""Largest dense matrix that is formed from a curvature that is not kept as one."""
SINGULAR = "hessian is singular where weights move; add damping to its diagonal"
TINIEST = 1e-100
"""Diagonal entries below this part of the largest count as this."""
CHUNK_BYTES = 1 << 26
"""Memory of one temporary of a product that is taken in chunks."""


class Hessian(ABC):
    """A symmetric positive semidefinite `n x n` curvature, shared by all rows or one per row.

    Attributes:
        n: number of inputs.
        rows: number of rows with a matrix of their own, or None when all rows share one.
    """

    n: int
    rows: int | None

    @abstractmethod
    def dense(self, row: int) -> Array:
        """The matrix `[n, n]` of a row (read-only; may be a view)."""

    @abstractmethod
    def diagonal(self) -> Array:
        """`[n]` diagonal, or `[rows, n]`."""

    @abstractmethod
    def matmul(self, D: Array) -> Array:
        """`D [m, n]` times each row's own matrix: row r of the result is `H_r D_r`."""

    @abstractmethod
    def select(self, columns: Index) -> Hessian:
        """The curvature restricted to some columns."""

    def block(self, row: int, index: Index | NDArray[np.bool_]) -> Array:
        """The square sub-block of a row's matrix on `index` (a copy)."""
        places = np.flatnonzero(index) if index.dtype == bool else index
        return np.asarray(self.dense(row).take(places, axis=0).take(places, axis=1))

    def solve(self, row: int, index: Index, rhs: Array) -> Array:
        """`H_II^-1 rhs` for the sub-block I of a row's matrix; `rhs` is `[|I|]` or `[|I|, k]`.

        Raises:
            ValueError: if the sub-block is singular.
        """
        return cholesky_solve(self.block(row, index), rhs)

    def inverse_diagonal(self, row: int, index: Index) -> Array:
        """`[|I|]` diagonal of `H_II^-1` for the sub-block I of a row's matrix.

        Raises:
            ValueError: if the sub-block is singular.
        """
        Z = scipy.linalg.solve_triangular(_cholesky(self.block(row, index)), np.eye(len(index)), lower=True)
        return np.asarray(np.einsum("ij,ij->j", Z, Z))

    def doubled(self, row: int, d: Array) -> tuple[Array, Array]:
        """A row's matrix times `d [n]` as heads and tails, see `solvers.hessian.doubled`."""
        heads, tails = multiply(self.dense(row), d, np.zeros(len(d)))
        return heads, tails

    def condition(self, row: int) -> float:
        """About the condition of a row's matrix at unit diagonal; infinite if it is not definite."""
        row = 0 if self.shared else row
        if row not in self._conditions:
            self._conditions[row] = condition(self.dense(row))
        return self._conditions[row]

    @cached_property
    def _conditions(self) -> dict[int, float]:
        return {}

    @cached_property
    def unit(self) -> tuple[Array, NDArray[np.float32]]:
        """Scales `s = diag(H)^-1/2` and `s H s'` in single precision, of a matrix that all rows share."""
        A = self.dense(0)
        scale = 1.0 / np.sqrt(np.diagonal(A))
        B = np.empty(A.shape, dtype=np.float32)
        for start in range(0, self.n, rows := max(1, CHUNK_BYTES // (8 * self.n))):
            part = slice(start, start + rows)
            B[part] = A[part] * scale[part, None] * scale
        return scale, B

    @property
    def shared(self) -> bool:
        """Whether all rows share one matrix."""
        return self.rows is None

    @property
    def implicit(self) -> bool:
        """Whether solvers should leave the dense matrix alone, and work on products and sub-blocks."""
        return False


def units(diagonal: Array) -> Array:
    """`[n]` powers of two that, from both sides, bring a diagonal to order one; one where it is zero."""
    diagonal = np.abs(diagonal)
    top = float(diagonal.max(initial=0.0))
    size = np.where(diagonal > 0.0, np.maximum(diagonal, TINIEST * top), max(top, np.finfo(float).tiny))
    return np.asarray(np.exp2(-np.round(0.5 * np.log2(size))))


def condition(A: Array) -> float:
    """About the condition of a symmetric matrix at unit diagonal; infinite if it has no Cholesky factor."""
    if not len(A):
        return 1.0
    scale = units(np.diagonal(A))
    B = scale[:, None] * A * scale
    L, info = scipy.linalg.lapack.dpotrf(B, lower=1)
    if info:
        return math.inf
    rcond, _ = scipy.linalg.lapack.dpocon(L, np.abs(B).sum(axis=0).max(), uplo="L")
    return 1.0 / rcond if rcond > 0.0 else math.inf


def cholesky_solve(A: Array, rhs: Array) -> Array:
    """`A^-1 rhs` for a positive definite matrix.

    Raises:
        ValueError: if `A` is not positive definite.
    """
    if not len(A) or not rhs.size:
        return np.zeros_like(rhs)
    X = np.array(rhs.T, dtype=np.float64, order="C", ndmin=2)
    if not solve_definite(np.array(A, dtype=np.float64, order="C"), X):
        raise ValueError(SINGULAR)
    return X.T.reshape(rhs.shape)


def _cholesky(A: Array) -> Array:
    try:
        return np.asarray(scipy.linalg.cholesky(A, lower=True))
    except scipy.linalg.LinAlgError:
        raise ValueError(SINGULAR) from None


def numbers(A: Any, name: str) -> Array:
    """A copy of an array, tensor or nested list in double precision.

    Raises:
        ValueError: unless it holds real numbers, densely.
    """
    try:
        if hasattr(A, "detach"):
            A = A.detach().cpu()
            A = A.double() if A.is_floating_point() else A
        B = np.asarray(A)
        if B.dtype.kind in "biufO" and not np.ma.is_masked(A):
            return np.array(B, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise ValueError(f"{name} must be an array of numbers")


def readonly(A: ArrayLike) -> Array:
    """A copy in double precision that can't be written to."""
    B = np.array(A, dtype=np.float64)
    B.setflags(write=False)
    return B


def require_formable(n: int, what: str) -> None:
    """Raise ValueError if a dense `n x n` matrix takes more than `FORM_BYTES`."""
    if 8 * n * n > FORM_BYTES:
        raise ValueError(
            f"hessian: {what} of {n} inputs is never formed, its matrix would take {8 * n * n / 1e9:.1f} GB; "
            "take a solver that works on factors: auto, local-search, swapping, chita, relaxation"
        )
