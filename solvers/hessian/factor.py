"""Curvature kept as a factor with damping, `X'X / N + c I`, and worked on without forming it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from solvers.hessian.base import (
    CHUNK_BYTES,
    SINGULAR,
    Array,
    Hessian,
    Index,
    cholesky_solve,
    numbers,
    readonly,
    require_formable,
)
from solvers.hessian.doubled import add_product, divide, multiply, pull_back

if TYPE_CHECKING:
    from solvers.hessian.block_diagonal import BlockDiagonalHessian

CACHE_SHARE = 16
"""How much smaller a chunk is in products with a few vectors."""
LARGE = 3000
"""Smaller side of a factor's columns from which systems are solved by conjugate gradients."""
SKETCH = 1024
"""Directions that precondition them."""
FEW = 16
"""Right-hand sides up to which they are."""
WIDE = 2048
"""Inputs up to which solvers may take a factor's dense matrix, however few its samples are."""
SPARE = 32
"""Directions beyond those asked for that the range finder draws."""
INNER = 1e-4
"""Relative residual at which conjugate gradients in single precision end."""
ITERATIONS = 500
"""Conjugate gradients at most between two residuals in double precision."""
REFINEMENTS = 12
"""Residuals in double precision at most."""
SETTLED = 1e-13
"""Relative residual that is taken for rounding."""


class FactorHessian(Hessian):
    """`H = X'X / N + damping I` with `X [N, n]`, shared by all rows.

    The dense matrix is formed only when asked for, and refused where it has more entries than the factor
    and takes more than `FORM_BYTES`. Solvers ask for it where `wide` is false: at `n <= N`, or
    `n <= WIDE`. Everything else is done by products with X, in double precision, whose temporaries take
    `CHUNK_BYTES` each.

    Args:
        X: `[N, n]` factor, e.g. per-sample gradients. Float32 or float64 is kept as it is, without a
            copy, so it must not be written to afterwards; other types are copied.
        damping: added to the diagonal, absolute; not negative.

    Raises:
        ValueError: if the factor is not a matrix, or has no samples.
    """

    def __init__(self, X: ArrayLike, damping: float = 0.0) -> None:
        self.X = _kept(X)
        if self.X.ndim != 2 or not len(self.X):
            raise ValueError(
                f"factor must be a matrix [N, n] of at least one sample, got shape {self.X.shape}"
            )
        self.damping = float(damping)
        self.N, self.n = self.X.shape
        self.rows = None
        self._dense: Array | None = None
        self._diagonal: Array | None = None
        self._sketch: tuple[Array, Array] | None = None

    @property
    def implicit(self) -> bool:
        """See `Hessian.implicit`."""
        return bool(self.n > max(self.N, WIDE))

    @property
    def ridge(self) -> Array:
        """`[n]`, what lies on the diagonal beside the squares: `H = F'F + diag(ridge)`, `F = X / sqrt(N)`."""
        return np.full(self.n, self.damping)

    def image(self, D: Array) -> Array:
        """`D F'`: `[m, N]` from `[m, n]`, in D's precision; columns where D is zero are not touched."""
        used = np.flatnonzero(D.any(axis=0))
        out = np.zeros((len(D), self.N), D.dtype)
        if 2 * len(used) < self.n:
            for part in _parts(len(used), self.N):
                out += D[:, used[part]] @ self.columns(used[part]).T.astype(D.dtype)
        else:
            for part, X in self._samples(len(D), D.dtype):
                out[:, part] = D @ X.T
        out /= np.sqrt(self.N)
        return out

    def pull_back(self, Y: Array) -> Array:
        """`Y F`: `[m, n]` from `[m, N]`, in Y's precision."""
        out = np.zeros((len(Y), self.n), Y.dtype)
        for part, X in self._samples(len(Y), Y.dtype):
            out += Y[:, part] @ X
        out /= np.sqrt(self.N)
        return out

    def root(self, index: Index | None = None, dtype: type[np.floating] = np.float64) -> Array:
        """Columns of `F = X / sqrt(N)`, some or all, `[N, |index|]`."""
        F: Array = (self.X if index is None else self.X[:, index]).astype(dtype)
        F /= dtype(np.sqrt(self.N))
        return F

    def columns(self, index: Index | NDArray[np.bool_]) -> Array:
        """`[N, |index|]` columns of X, in double precision."""
        return self.X[:, index].astype(np.float64)

    def gram(self, index: Index | None = None) -> Array:
        """`X_I X_I'`, `[N, N]`, over some columns or all."""
        K = np.zeros((self.N, self.N))
        for part in _parts(self.n if index is None else len(index), self.N):
            Xi = self.columns(np.arange(self.n)[part] if index is None else index[part])
            K += Xi @ Xi.T
        return K

    def dense(self, row: int) -> Array:
        """`X'X / N + damping I`, formed once and kept.

        Raises:
            ValueError: if it is too large to be formed, see the class.
        """
        if self._dense is None:
            if self.n > self.N:
                require_formable(self.n, "a factor")
            self._dense = self.block(row, np.arange(self.n))
            self._dense.setflags(write=False)
        return self._dense

    def block(self, row: int, index: Index | NDArray[np.bool_]) -> Array:
        """The sub-block on `index`, from the factor."""
        Xi = self.columns(index)
        B: Array = Xi.T @ Xi / self.N
        B[np.diag_indices(len(B))] += self.damping
        return B

    def diagonal(self) -> Array:
        """`[n]` diagonal, from the factor."""
        if self._diagonal is None:
            total = np.zeros(self.n)
            for _, X in self._samples(1, np.dtype(np.float64)):
                total += np.einsum("si,si->i", X, X)
            self._diagonal = readonly(total / self.N + self.damping)
        return self._diagonal

    def matmul(self, D: Array) -> Array:
        """`D H` by two products with the factor."""
        return np.asarray(self.pull_back(self.image(D)) + self.damping * D)

    def doubled(self, row: int, d: Array) -> tuple[Array, Array]:
        """See `Hessian.doubled`: by two products with the factor."""
        image = multiply(self.X, d, np.zeros(self.n))
        heads, tails = divide(pull_back(self.X, *image), self.N)
        heads, tails = add_product(heads, tails, self.damping, d)
        return heads, tails

    def condition(self, row: int) -> float:
        """See `Hessian.condition`; of a wide factor a bound, by its trace and damping."""
        if not self.implicit:
            return super().condition(row)
        if self.damping == 0.0:
            return math.inf
        return float(self.diagonal().sum()) / self.damping

    def kernel(self, index: Index | None = None) -> Array:
        """Lower Cholesky factor of `K = N c I + X_I X_I'`, `[N, N]`, by which Woodbury's identity inverts.

        Raises:
            ValueError: if K is singular.
        """
        K = self.gram(index)
        K[np.diag_indices(self.N)] += self.N * self.damping
        try:
            return np.asarray(scipy.linalg.cholesky(K, lower=True, overwrite_a=True))
        except scipy.linalg.LinAlgError:
            raise ValueError(SINGULAR) from None

    def solve(self, row: int, index: Index, rhs: Array) -> Array:
        """By Woodbury when the block is wider than the factor is tall; of large ones by conjugate gradients.

        `(X'X/N + c I)^-1 b = (b - X' (N c I + X X')^-1 X b) / c`.
        """
        sides = rhs.size // max(1, len(index))
        if min(len(index), self.N) > LARGE and self.damping > 0 and sides <= FEW:
            found = solve_by_gradients(
                self, self.damping, self.sketch()[1], index, rhs.reshape(len(index), -1)
            )
            return found.reshape(rhs.shape)
        if len(index) <= self.N or self.damping == 0:
            return cholesky_solve(self.block(row, index), rhs)
        L = self.kernel(index)
        B = rhs.reshape(len(index), -1)
        image, out = np.zeros((self.N, B.shape[1])), np.empty(B.shape)
        for part in _parts(len(index), self.N):
            image += self.columns(index[part]) @ B[part]
        inner = scipy.linalg.cho_solve((L, True), image)
        for part in _parts(len(index), self.N):
            out[part] = (B[part] - self.columns(index[part]).T @ inner) / self.damping
        return out.reshape(rhs.shape)

    def sketch(self) -> tuple[Array, Array]:
        """The `SKETCH` strongest directions of F and their pull-back (`strongest`), found once and kept."""
        if self._sketch is None:
            self._sketch = strongest(self, np.ones(self.n), SKETCH)
        return self._sketch

    def inverse_diagonal(self, row: int, index: Index) -> Array:
        """By Woodbury where the block is wider than the factor is tall: `(1 - x_q' K^-1 x_q) / c`."""
        if len(index) <= self.N or self.damping == 0:
            return super().inverse_diagonal(row, index)
        return np.asarray((1.0 - self.leverages(self.kernel(index), index)) / self.damping)

    def leverages(self, L: Array, index: Index) -> Array:
        """`x_q' (L L')^-1 x_q` for columns q of X, `[|index|]`."""
        out = np.empty(len(index))
        for part in _parts(len(index), self.N):
            Z = scipy.linalg.solve_triangular(L, self.columns(index[part]), lower=True, overwrite_b=True)
            out[part] = np.einsum("sq,sq->q", Z, Z)
        return out

    def select(self, columns: Index) -> FactorHessian:
        """The factor restricted to `columns`."""
        return FactorHessian(self.X[:, columns], self.damping)

    def eliminate(self, columns: Index) -> FactorHessian:
        """The Schur complement of `columns` b on all others p, a factor again.

            H_pp - H_pb H_bb^-1 H_bp = X~'X~ / N + c I,   X~ = R X_p  (`compensated`)

        Raises:
            ValueError: if `H_bb` is singular.
        """
        rest = np.setdiff1d(np.arange(self.n), columns)
        return FactorHessian(self.compensated(columns, self.columns(rest)), self.damping)

    def compensated(self, columns: Index, Z: Array) -> Array:
        """`R Z` for `Z [N, k]`: what is left of images once `columns` b have moved against them.

        With the singular value decomposition `X_b / sqrt(N) = U diag(s) V'`,
        `R = I - U diag(1 - sqrt(c / (c + s^2))) U'`, whose square is `I - X_b H_bb^-1 X_b' / N`.

        Raises:
            ValueError: if `H_bb` is singular.
        """
        U, s, _ = scipy.linalg.svd(self.root(columns), full_matrices=False)
        least = s[-1] ** 2 if len(s) == len(columns) else 0.0
        if self.damping + least <= self.n * np.finfo(float).eps * (self.damping + s[0] ** 2):
            raise ValueError(SINGULAR)
        share = 1.0 - np.sqrt(self.damping / (self.damping + s**2))
        out = np.empty(Z.shape)
        for part in _parts(Z.shape[1], self.N):
            out[:, part] = Z[:, part] - (U * share) @ (U.T @ Z[:, part])
        return out

    def _samples(self, sides: int, dtype: np.dtype[np.floating]) -> Iterator[tuple[slice, Array]]:
        """Chunks of rows of X in some precision; all of it at once where it is in that already.

        A product with few other sides is done sooner than memory is handed out: its chunks fit a cache.
        """
        if self.X.dtype == dtype:
            yield slice(None), self.X
            return
        for part in _parts(self.N, self.n * (CACHE_SHARE if sides < CACHE_SHARE else 1)):
            yield part, self.X[part].astype(dtype)


def _parts(count: int, width: int) -> Iterator[slice]:
    """Slices of `range(count)` whose temporaries of `width` numbers a place stay within `CHUNK_BYTES`."""
    step = max(1, CHUNK_BYTES // (8 * max(width, 1)))
    for start in range(0, count, step):
        yield slice(start, start + step)


def _kept(X: ArrayLike) -> NDArray[np.float64]:
    A = X if isinstance(X, np.ndarray) and X.dtype in (np.float32, np.float64) else numbers(X, "factor")
    view = A.view()
    view.setflags(write=False)
    return view


def strongest(
    hessian: FactorHessian | BlockDiagonalHessian, squares: Array, rank: int
) -> tuple[Array, Array]:
    """`Q [N, r]`, orthonormal, about the strongest directions of `F diag(squares)^1/2`, and `F'Q [n, r]`.

    A randomised range finder with one power step, in single precision (Halko, Martinsson & Tropp 2011,
    algorithm 4.4).

    Args:
        hessian: the factor.
        squares: `[n]`, not negative.
        rank: directions wanted; fewer where F has no more.
    """
    weights = squares.astype(np.float32)

    def spread(Y: Array) -> Array:
        return hessian.image(hessian.pull_back(Y) * weights)

    Y: Array = np.random.default_rng(0).standard_normal((rank + SPARE, hessian.N)).astype(np.float32)
    Y = spread(scipy.linalg.qr(spread(Y).T, mode="economic")[0].T)
    Q, size, _ = scipy.linalg.svd(Y.T.astype(np.float64), full_matrices=False)
    Q = np.ascontiguousarray(Q[:, : min(rank, max(1, int((size > 1e-6 * size[0]).sum())))])
    Z = hessian.pull_back(Q.T.astype(np.float32)).T
    return Q, np.ascontiguousarray(Z, dtype=np.float64)


def solve_by_gradients(hessian: FactorHessian, c: float, Z: Array, index: Index, rhs: Array) -> Array:
    """`(F_I'F_I + c I)^-1 rhs` to rounding, without a matrix of `[N, N]` or `[|I|, |I|]`.

    Conjugate gradients in single precision, preconditioned by `Z_I Z_I' + c I` and refined by residuals in
    double (Frangella, Tropp & Udell 2023; Higham, Accuracy and Stability, section 12.1).

    Args:
        hessian: the factor.
        c: damping, positive.
        Z: `[n, r]`, from `strongest`.
        index: I.
        rhs: `[|I|, k]`.

    Raises:
        ValueError: if the residuals do not fall, as the damping is lost in rounding.
    """
    part = Z[index]
    inner = part.T @ part
    inner[np.diag_indices(len(inner))] += c
    L = scipy.linalg.cho_factor(inner, lower=True, overwrite_a=True)
    F = hessian.root(index, np.float32)
    out = np.zeros(rhs.shape)
    whole = np.zeros((1, len(Z)))
    for k, b in enumerate(rhs.T):
        r, size = b.copy(), float(np.linalg.norm(b))
        for _ in range(REFINEMENTS):
            if float(np.linalg.norm(r)) <= SETTLED * size:
                break
            out[:, k] += _gradients(F, c, part, L, r)
            whole[0, index] = out[:, k]
            r = b - hessian.pull_back(hessian.image(whole))[0, index] - c * out[:, k]
        if not float(np.linalg.norm(r)) <= np.sqrt(SETTLED) * size:
            raise ValueError(SINGULAR)
    return out


def _gradients(F: Array, c: float, part: Array, L: tuple[Array, bool], b: Array) -> Array:
    x, r = np.zeros_like(b), b.copy()

    def precondition(v: Array) -> Array:
        return np.asarray((v - part @ scipy.linalg.cho_solve(L, part.T @ v)) / c)

    direction = z = precondition(r)
    size = float(r @ z)
    enough = INNER**2 * size
    for _ in range(ITERATIONS):
        if size <= enough:
            break
        product = F.T @ (F @ direction.astype(F.dtype)) + c * direction
        length = size / float(direction @ product)
        x += length * direction
        r -= length * product
        z = precondition(r)
        before, size = size, float(r @ z)
        direction = z + (size / before) * direction
    return x
