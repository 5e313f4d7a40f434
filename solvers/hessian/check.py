"""What is wrong with a curvature, said before any solver sees it."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike

from solvers.hessian.base import CHUNK_BYTES, Array, Hessian, numbers, units
from solvers.hessian.block_diagonal import BlockDiagonalHessian
from solvers.hessian.dense import DenseHessian, StackedHessian
from solvers.hessian.factor import FactorHessian

ASYMMETRY = 1e-10
"""Largest asymmetry, relative to the diagonal, that is taken for rounding and averaged away."""
NEGLIGIBLE = 1e-12
"""Curvature that is rounding, a column, as a part of the diagonal."""
ALIKE = 1e-12
"""Columns whose cosine is this near to one are called multiples of each other."""
DAMPING = 1e-6
"""Damping that messages recommend, as a part of the diagonal."""


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
    if isinstance(H, (FactorHessian, BlockDiagonalHessian)):
        if H.n != n:
            what = "factor" if isinstance(H, FactorHessian) else "hessian"
            raise ValueError(f"{what} has {H.n} columns, but the weights have {n} inputs")
        for block in H.blocks if isinstance(H, BlockDiagonalHessian) else (H,):
            _check_block(block, definite)
        return H
    if not isinstance(H, Hessian):
        A = numbers(H, "hessian")
        if A.shape not in ((n, n), (m, n, n)):
            raise ValueError(
                f"hessian has shape {A.shape}, but weights [{m}, {n}] need ({n}, {n}) or ({m}, {n}, {n})"
            )
        _require_finite(A, "hessian")
        for r, B in enumerate(A[None] if A.ndim == 2 else A):
            _require_symmetric(B, "" if A.ndim == 2 else f" of row {r}")
        H = DenseHessian(A) if A.ndim == 2 else StackedHessian(A)
    if H.n != n or H.rows not in (None, m):
        raise ValueError(f"hessian is for {H.rows or 'any'} rows of {H.n} inputs, the weights are [{m}, {n}]")
    for r in range(H.rows or 1):
        _require_psd(H, r, definite)
    return H


def _check_block(H: Hessian, definite: bool) -> None:
    """A factor by its numbers, anything else by its matrix."""
    if not isinstance(H, FactorHessian):
        _require_psd(H, 0, definite)
        return
    for start in range(0, H.N, rows := max(1, CHUNK_BYTES // H.n)):
        _require_finite(H.X[start : start + rows], "factor", start)
    if not np.isfinite(H.damping) or H.damping < 0 or (definite and H.damping == 0 and H.n > H.N):
        raise ValueError(
            f"hessian: factor with damping {H.damping} is not positive definite; give a damping > 0, "
            f"e.g. {DAMPING * float(np.mean(H.diagonal())):.3g}"
        )
    if definite and not H.implicit and H.damping < NEGLIGIBLE * float(H.diagonal().min()):
        _require_psd(H, 0, definite)


def _require_finite(A: Array, name: str, first: int = 0) -> None:
    if not np.isfinite(A).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(A))[0])
        shown = [where[0] + first, *where[1:]]
        raise ValueError(f"{name} has {A[where]} at {shown}; every entry must be finite")


def _require_symmetric(A: Array, which: str) -> None:
    scale = float(np.abs(np.diagonal(A)).max(initial=0.0))
    asymmetry = float(np.abs(A - A.T).max(initial=0.0))
    if asymmetry > ASYMMETRY * max(scale, np.finfo(float).tiny):
        raise ValueError(f"hessian{which} is asymmetric by {asymmetry:.3g}; give (H + H.T) / 2")


def _require_psd(H: Hessian, row: int, definite: bool) -> None:
    """Judged with columns in units that make the diagonal one: what units they came in does not matter."""
    A, n = H.dense(row), H.n
    if definite and H.condition(row) < 1.0 / (n * np.finfo(float).eps):
        return
    scale = units(np.diagonal(A))
    B = scale[:, None] * A * scale
    if not definite and any(_factors(M, NEGLIGIBLE * n * np.abs(np.diagonal(M)).max()) for M in (B, A)):
        return
    low = float(scipy.linalg.eigvalsh(B, subset_by_index=[0, 0])[0]) if np.isfinite(B).all() else -np.inf
    singular = low >= -NEGLIGIBLE * n * float(np.abs(np.diagonal(B)).max())
    need = "positive definite; add damping to the diagonal, " if definite else "positive semidefinite"
    if definite:
        need += (
            f"e.g. {DAMPING if singular else 2.0 * abs(low):.3g} of each entry (of their mean where it is 0)"
        )
    raise ValueError(
        f"hessian{'' if H.shared else f' of row {row}'} is {'singular' if singular else 'indefinite'} "
        f"(smallest eigenvalue {low:.3g} at unit diagonal{_culprits(B)}); it must be {need}"
    )


def _factors(A: Array, jitter: float) -> bool:
    _, info = scipy.linalg.lapack.dpotrf(A + np.diag(np.full(len(A), jitter + np.finfo(float).tiny)), lower=1)
    return bool(info == 0)


def _culprits(B: Array) -> str:
    """The first column without curvature, or pair that can't be told apart, in a matrix of unit diagonal."""
    size = np.sqrt(np.maximum(np.diagonal(B), 0.0))
    if not size.all():
        return f"; column {int(np.argmin(size))} is empty"
    alike = np.argwhere(np.triu(np.abs(B) >= (1.0 - ALIKE) * np.outer(size, size), 1))
    return f"; columns {alike[0, 0]} and {alike[0, 1]} are multiples of each other" if len(alike) else ""
