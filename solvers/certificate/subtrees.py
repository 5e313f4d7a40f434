"""Splits that assume fixings, made valid beyond rounding, and points completed by what is assumed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.secure import secure
from solvers.hessian import Array

SHARE = 1e-7
"""Share of the first split that kept entries get, and what a bound may lose by it."""

Roots = NDArray[np.int8]


def lift(d: Array, root: Roots) -> Array:
    """`[Q, g, n]` splits of what is left free, made splits of the kept entries too.

    Joint. If `S - diag(d_F)` is positive semidefinite for the Schur complement S of the kept entries K, so is
    `H - diag(d_F, 0)` on F and K; mixed with the first split `d_0`, as `(1 - a) (d_F, 0) + a d_0`, it stays
    so and is positive everywhere.

    Args:
        d: splits; the first assumes nothing, the others count only where their root is free.
        root: `[Q, n]` what each assumes.
    """
    assumed = (root != 0)[:, None, :]
    kept = (root > 0)[:, None, :]
    mixed = np.where(kept, 0.0, d) * (1.0 - SHARE) + SHARE * d[0]
    lifted = np.where(assumed.any(axis=2, keepdims=True), mixed, d)
    return np.where((root < 0)[:, None, :], d[0], lifted)


def secured(H: Array, d: Array, root: Roots, refit: bool, slack: Array | None = None) -> Array:
    """Splits shrunk until each is valid for certain on the entries that it has to be; see `Proof`.

    Args:
        H: `[g, n, n]`.
        d: `[Q, g, n]`.
        root: `[Q, n]` what each split assumes.
        refit: joint, or selection.
        slack: `[g, n, n]` how far H may be from what it stands for.

    Raises:
        ValueError: if H is too close to singular.
    """
    out = d.copy()
    for q in range(len(d)):
        alive = np.flatnonzero(asked(root[q], refit))
        for g in range(len(H)) if len(alive) else ():
            A = H[g][np.ix_(alive, alive)]
            if slack is not None:
                A = A - 2.0 * np.diag(slack[g][np.ix_(alive, alive)].sum(axis=1))
            out[q, g, alive] = secure(A, d[q, g, alive], refit)
    return out


def asked(root: Roots, refit: bool) -> NDArray[np.bool_]:
    """The entries on which a split that assumes `root` has to be valid."""
    return np.asarray(root >= 0 if refit else root == 0)


def completed(H: Array, B: Array, root: Roots, owner: NDArray[np.int32], u: Array) -> Array:
    """Joint points with the best of what their splits assume kept, and zero where it is pruned.

    The bound is greatest in `u_K` where `q_K = d_K u_K`, that is where `H_KK u_K = b_K - H_KF u_F`; with
    d near 0 the scores of kept entries then vanish.

    Args:
        H: `[g, n, n]`.
        B: `[g, n, c]`.
        root: `[Q, n]`.
        owner: `[V]` split of each point.
        u: `[V, g, n, c]`, float64.
    """
    out = np.where((root[owner] == 0)[:, None, :, None], u, 0.0)
    for q in np.unique(owner):
        kept = np.flatnonzero(root[q] > 0)
        mine = np.flatnonzero(owner == q)
        for g in range(len(H)) if len(kept) else ():
            rest = B[g][kept][None] - H[g][kept] @ out[mine, g]
            side = rest.transpose(1, 0, 2).reshape(len(kept), -1)
            found = np.linalg.solve(H[g][np.ix_(kept, kept)], side)
            part = found.reshape(len(kept), len(mine), -1).transpose(1, 0, 2)
            out[mine[:, None], g, kept[None, :]] = part
    return out
