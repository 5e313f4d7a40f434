"""What is wrong with a curvature, said before any solver sees it."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike

from solvers.hessian.base import CHUNK_BYTES, Array, Hessian
from solvers.hessian.block_diagonal import BlockDiagonalHessian
from solvers.hessian.dense import DenseHessian, StackedHessian
from solvers.hessian.factor import FactorHessian

ASYMMETRY = 1e-10
"""Largest asymmetry, relative to the diagonal, that is taken for rounding and averaged away."""


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


def _check_block(H: Hessian, definite: bool) -> None:
    """A factor by its numbers, anything else by its matrix."""
    if not isinstance(H, FactorHessian):
        _require_psd(H.dense(0), definite, "")
        return
    for start in range(0, H.N, rows := max(1, CHUNK_BYTES // H.n)):
        _require_finite(H.X[start : start + rows], "factor", start)
    if not np.isfinite(H.damping) or H.damping < 0 or (definite and H.damping == 0 and H.n > H.N):
        raise ValueError(
            f"hessian: factor with damping {H.damping} is not positive definite; give a damping > 0"
        )
    if definite and H.damping == 0:
        _require_psd(H.dense(0), definite, "")


def _require_finite(A: Array, name: str, first: int = 0) -> None:
    if not np.isfinite(A).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(A))[0])
        shown = [where[0] + first, *where[1:]]
        raise ValueError(f"{name} has {A[where]} at {shown}; every entry must be finite")


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
