"""Curvature as solvers see it: dense, one matrix a row, or a factor with damping."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

ASYMMETRY = 1e-10
"""Largest asymmetry, relative to the diagonal, that is taken for rounding and averaged away."""


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
    def select(self, columns: NDArray[np.int64]) -> Hessian:
        """The curvature restricted to some columns."""

    def block(self, row: int, index: NDArray[np.int64] | NDArray[np.bool_]) -> Array:
        """The square sub-block of a row's matrix on `index` (a copy)."""
        return np.array(self.dense(row)[np.ix_(index, index)])

    def solve(self, row: int, index: NDArray[np.int64], rhs: Array) -> Array:
        """`H_II^-1 rhs` for the sub-block I of a row's matrix; `rhs` is `[|I|]` or `[|I|, k]`.

        Raises:
            ValueError: if the sub-block is singular.
        """
        return cholesky_solve(self.block(row, index), rhs)

    @property
    def shared(self) -> bool:
        """Whether all rows share one matrix."""
        return self.rows is None


class DenseHessian(Hessian):
    """One matrix `[n, n]` for all rows."""

    def __init__(self, H: ArrayLike) -> None:
        self.H = _readonly(_symmetric(H))
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

    def select(self, columns: NDArray[np.int64]) -> DenseHessian:
        """The sub-block on `columns`."""
        return DenseHessian(self.H[np.ix_(columns, columns)])


class StackedHessian(Hessian):
    """A matrix for every row: `[m, n, n]`."""

    def __init__(self, H: ArrayLike) -> None:
        self.H = _readonly(_symmetric(H))
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

    def select(self, columns: NDArray[np.int64]) -> StackedHessian:
        """The sub-blocks on `columns`."""
        return StackedHessian(self.H[:, columns[:, None], columns[None, :]])


class FactorHessian(Hessian):
    """`H = X'X / N + damping I` with `X [N, n]`, shared by all rows; formed only when asked for.

    Args:
        X: `[N, n]` factor, e.g. per-sample gradients.
        damping: added to the diagonal, absolute; not negative.

    Raises:
        ValueError: if the factor is not a matrix, or has no samples.
    """

    def __init__(self, X: ArrayLike, damping: float = 0.0) -> None:
        self.X = _readonly(X)
        if self.X.ndim != 2 or not len(self.X):
            raise ValueError(
                f"factor must be a matrix [N, n] of at least one sample, got shape {self.X.shape}"
            )
        self.damping = float(damping)
        self.N, self.n = self.X.shape
        self.rows = None
        self._dense: Array | None = None

    def dense(self, row: int) -> Array:
        """`X'X / N + damping I`, formed once and kept."""
        if self._dense is None:
            H = self.X.T @ self.X / self.N
            H[np.diag_indices(self.n)] += self.damping
            self._dense = _readonly(H)
        return self._dense

    def block(self, row: int, index: NDArray[np.int64] | NDArray[np.bool_]) -> Array:
        """The sub-block on `index`, from the factor."""
        Xi = self.X[:, index]
        B: Array = Xi.T @ Xi / self.N
        B[np.diag_indices(len(B))] += self.damping
        return B

    def diagonal(self) -> Array:
        """`[n]` diagonal, from the factor."""
        return np.asarray(np.einsum("si,si->i", self.X, self.X) / self.N + self.damping)

    def matmul(self, D: Array) -> Array:
        """`D H` by two products with the factor."""
        return np.asarray((D @ self.X.T) @ self.X / self.N + self.damping * D)

    def solve(self, row: int, index: NDArray[np.int64], rhs: Array) -> Array:
        """By Woodbury when the block is wider than the factor is tall.

        `(X'X/N + c I)^-1 b = (b - X' (N c I + X X')^-1 X b) / c`.
        """
        if len(index) <= self.N or self.damping == 0:
            return super().solve(row, index, rhs)
        X = self.X[:, index]
        K = X @ X.T
        K[np.diag_indices(self.N)] += self.N * self.damping
        return np.asarray((rhs - X.T @ cholesky_solve(K, X @ rhs)) / self.damping)

    def select(self, columns: NDArray[np.int64]) -> FactorHessian:
        """The factor restricted to `columns`."""
        return FactorHessian(self.X[:, columns], self.damping)


def as_hessian(H: ArrayLike | Hessian, m: int, n: int, *, definite: bool) -> Hessian:
    """Check a curvature and wrap it.

    Args:
        H: `[n, n]`, `[m, n, n]`, or a `Hessian`.
        m: rows of the weights.
        n: inputs of the weights.
        definite: require positive definite (the joint variant), not just semidefinite.

    Raises:
        ValueError: naming the shape, the NaN, the asymmetry or the eigenvalue that is wrong.
    """
    if isinstance(H, FactorHessian):
        _require_finite(H.X, "factor")
        if H.n != n:
            raise ValueError(f"factor has {H.n} columns, but the weights have {n} inputs")
        if not np.isfinite(H.damping) or H.damping < 0 or (definite and H.damping == 0 and n > H.N):
            raise ValueError(
                f"hessian: factor with damping {H.damping} is not positive definite; give a damping > 0"
            )
        if definite and H.damping == 0:
            _require_psd(H.dense(0), definite, "")
        return H
    if not isinstance(H, Hessian):
        try:
            A = np.asarray(H, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError("hessian must be an array of numbers") from None
        if A.shape not in ((n, n), (m, n, n)):
            raise ValueError(
                f"hessian has shape {A.shape}, but weights [{m}, {n}] need ({n}, {n}) or ({m}, {n}, {n})"
            )
        _require_finite(A, "hessian")
        for r, B in enumerate(A[None] if A.ndim == 2 else A):
            _require_psd(B, definite, "" if A.ndim == 2 else f" of row {r}")
        return DenseHessian(A) if A.ndim == 2 else StackedHessian(A)
    if H.n != n or H.rows not in (None, m):
        raise ValueError(f"hessian is for {H.rows or 'any'} rows of {H.n} inputs, the weights are [{m}, {n}]")
    for r in range(H.rows or 1):
        _require_psd(H.dense(r), definite, "" if H.shared else f" of row {r}")
    return H


def cholesky_solve(A: Array, rhs: Array) -> Array:
    """`A^-1 rhs` for a positive definite matrix.

    Raises:
        ValueError: if `A` is not positive definite.
    """
    try:
        return np.asarray(scipy.linalg.cho_solve(scipy.linalg.cho_factor(A, lower=True), rhs))
    except scipy.linalg.LinAlgError:
        raise ValueError("hessian is singular where weights move; add damping to its diagonal") from None


def _require_finite(A: Array, name: str) -> None:
    if not np.isfinite(A).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(A))[0])
        raise ValueError(f"{name} has {A[where]} at {list(where)}; every entry must be finite")


def _require_psd(A: Array, definite: bool, which: str) -> None:
    scale = float(np.abs(np.diagonal(A)).max(initial=0.0))
    asymmetry = float(np.abs(A - A.T).max(initial=0.0))
    if asymmetry > ASYMMETRY * max(scale, np.finfo(float).tiny):
        raise ValueError(f"hessian{which} is asymmetric by {asymmetry:.3g}; give (H + H.T) / 2")
    n = len(A)
    slack = 1e-12 * n * scale
    jitter = np.zeros(n) if definite else np.full(n, slack + np.finfo(float).tiny)
    L, info = scipy.linalg.lapack.dpotrf(A + np.diag(jitter), lower=1)
    if info == 0 and definite and n:
        rcond, _ = scipy.linalg.lapack.dpocon(L, np.abs(A).sum(axis=0).max(), uplo="L")
        info = int(rcond <= n * np.finfo(float).eps)
    if info != 0:
        low = float(scipy.linalg.eigvalsh(A, subset_by_index=[0, 0])[0])
        kind = "indefinite" if low < -slack else "singular"
        need = "positive definite; add damping to the diagonal" if definite else "positive semidefinite"
        raise ValueError(f"hessian{which} is {kind} (smallest eigenvalue {low:.3g}); it must be {need}")


def _symmetric(H: ArrayLike) -> Array:
    A = np.asarray(H, dtype=np.float64)
    return 0.5 * (A + A.swapaxes(-1, -2))


def _readonly(A: ArrayLike) -> Array:
    B = np.array(A, dtype=np.float64)
    B.setflags(write=False)
    return B
