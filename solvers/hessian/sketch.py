"""Large factors: their strongest directions, and systems solved by gradients that these precondition."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import scipy.linalg

from solvers.hessian.base import SINGULAR, Array, Index

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


class Factor(Protocol):
    """What is asked of a factor F, `[N, n]`."""

    @property
    def N(self) -> int:
        """Dimensions of the image."""
        ...

    def image(self, D: Array) -> Array:
        """`D F'`, in D's precision."""
        ...

    def pull_back(self, Y: Array) -> Array:
        """`Y F`, in Y's precision."""
        ...

    def root(self, index: Index | None = None, dtype: type[np.floating] = np.float64) -> Array:
        """Columns of F."""
        ...


def strongest(hessian: Factor, squares: Array, rank: int) -> tuple[Array, Array]:
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


def solve_by_gradients(hessian: Factor, c: float, Z: Array, index: Index, rhs: Array) -> Array:
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
