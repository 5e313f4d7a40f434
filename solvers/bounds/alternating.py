"""Block coordinate descent on the perspective relaxation of a wide row: v, then z, then v again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg

from solvers.blocks import Block
from solvers.hessian import Array

DROP = 1e-6
"""Shares below this are left out of a step's linear system, and taken for zero."""


def alternate(
    block: Block,
    d: Array,
    z: Array,
    *,
    steps: int = 200,
    tolerance: float = 1e-3,
    stopped: Callable[[], object] = lambda: None,
) -> Array:
    """`[n]` relaxed indicators of a lone joint row of one pool, at a given split.

    In turn `v = (R + diag(d / z))^-1 b`, and the best z for that v, which is
    `z_i = min(1, sqrt(d_i) |v_i| / tau)` with tau such that the shares sum to `keep`. Each step costs
    one Cholesky factorisation on the entries still in play, and the relaxed value never rises.

    Args:
        block: joint, with one curvature, one right-hand side and one pool.
        d: `[1, n]` split.
        z: `[n]` where to start, with sum `keep`.
        steps: how many to take at most.
        tolerance: relative distance of relaxed value and bound at which to stop.
        stopped: polled between steps; a true answer ends them.
    """
    H, b, keep = block.H[0], block.B[0, :, 0], float(block.keep[0])
    root = np.sqrt(d[0])
    shares = np.array(z, dtype=np.float64)
    for _ in range(steps):
        if stopped():
            break
        active = np.flatnonzero(shares > DROP)
        M = H[np.ix_(active, active)]
        M[np.diag_indices(len(active))] += d[0, active] * (1.0 / shares[active] - 1.0)
        factor = scipy.linalg.cho_factor(M, lower=True, overwrite_a=True, check_finite=False)
        size = np.zeros(block.n)
        v = scipy.linalg.cho_solve(factor, b[active], check_finite=False)
        size[active] = root[active] * np.abs(v)
        q = b - H[:, active] @ v
        q[active] += d[0, active] * v
        scores = q * q / (2.0 * d[0])
        value = block.constant - 0.5 * float(b[active] @ v)
        best = float(np.sort(scores)[block.n - int(keep) :].sum())
        if best - float(shares @ scores) <= tolerance * abs(value):
            break
        shares = best_shares(size, keep)
    return shares


def best_shares(size: Array, keep: float) -> Array:
    """`argmin sum size_i^2 / z_i` over `0 <= z <= 1`, `sum z = keep`: `min(1, size / tau)`.

    With the j largest at one, `tau = (sum of the rest) / (keep - j)`; j is the first for which the
    next one stays below it.
    """
    order = np.argsort(-size, kind="stable")
    falling = size[order]
    rest = np.cumsum(falling[::-1])[::-1]
    full = np.arange(len(size))
    room = keep - full
    fits = np.flatnonzero((room > 0) & (falling * room <= rest))
    shares = np.zeros(len(size))
    j = int(fits[0]) if fits.size else int(keep)
    shares[order[:j]] = 1.0
    if j < len(size) and rest[j] > 0:
        shares[order[j:]] = falling[j:] * (keep - j) / rest[j]
    return shares
