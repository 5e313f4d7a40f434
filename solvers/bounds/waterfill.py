"""Water-filling: the indicators of a relaxation, which rise from 0 to 1 with a level that a pool shares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.hessian import Array
from solvers.runtime.compiled import njit
from solvers.runtime.tensors import Tensor, torch

TOLERANCE = {4: 1e-5, 8: 1e-9}
"""How far a pool's sum may be from its count, relative to the count, by bytes of a number."""
NARROW = 32
"""Pools of fewer entries are laid out side by side, so that sums run over whole rows."""
PASSES = 60
"""Updates of the levels at most."""
STEPS = 200
"""Updates of the levels of smoothed shares at most."""
EXACT = 1e-14
"""Relative error of a pool's sum of smoothed shares that is taken for rounding."""


def fill(offset: Tensor, slope: Tensor, count: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`x = clip(offset + s slope, 0, 1)` with a level s of every pool at which `sum x = count`.

    The sum never falls with s and is piecewise linear, so that Newton's method, kept within a bracket that
    bisection shrinks, ends on the right piece after a few passes. Where no level reaches the count (too few
    slopes are positive), x is what the highest one tried gives.

    Args:
        offset: `[P, size]`, a pool a row.
        slope: `[P, size]`, not negative.
        count: `[P, 1]` sums, from 0 to size.
        start: `[P, 1]` levels to start from; None starts where no share would be cut off.

    Returns:
        x `[P, size]` and s `[P, 1]`.
    """
    tolerance = TOLERANCE[slope.dtype.itemsize]
    narrow = slope.shape[1] < NARROW
    if narrow:
        offset, slope, count = offset.T.contiguous(), slope.T.contiguous(), count.T
        start = None if start is None else start.T
    dim = 0 if narrow else 1

    def total(A: Tensor) -> Tensor:
        return A.sum(dim, keepdim=True)

    tiny = torch.finfo(slope.dtype).tiny
    safe = slope.clamp_min(tiny)
    low = (-offset / safe).amin(dim, keepdim=True)
    high = ((1.0 - offset) / safe).amax(dim, keepdim=True)
    level = (count - total(offset)) / total(slope).clamp_min(tiny) if start is None else start
    level = torch.minimum(torch.maximum(level, low), high)
    for _ in range(PASSES):
        x = torch.addcmul(offset, slope, level).clamp_(0.0, 1.0)
        short = count - total(x)
        far = short.abs() > tolerance * count
        if not far.any():
            break
        high = torch.where(short < 0.0, level, high)
        low = torch.where(short < 0.0, low, level)
        newton = level + short / total(slope * ((x > 0.0) & (x < 1.0)))
        newton = torch.where((newton > low) & (newton < high), newton, low + 0.5 * (high - low))
        level = torch.where(far, newton, level)
    return (x.T, level.T) if narrow else (x, level)


def smoothed_shares(scores: Array, labels: NDArray[np.int64], take: NDArray[np.int64], width: float) -> Array:
    """`argmax z.s - width/2 |z|^2` over `0 <= z <= 1`, `sum z = take` in every pool.

    That is `z_i = clip((s_i - t) / width, 0, 1)`, with a threshold t for each pool, found by Newton's method.
    As width falls, the z of a pool's `take` largest scores go to one and the others to zero.

    Args:
        scores: `[n]`.
        labels: `[n]` pool of every entry, counted from 0.
        take: `[pools]` entries to take.
        width: positive.
    """
    low = np.full(len(take), np.inf)
    np.minimum.at(low, labels, scores)
    high = np.full(len(take), -np.inf)
    np.maximum.at(high, labels, scores)
    return np.asarray(
        _shares(scores, labels, take.astype(np.float64), width, low - width, high), dtype=np.float64
    )


@njit(cache=True, nogil=True)
def _shares(scores, labels, take, width, low, high):  # type: ignore[no-untyped-def]
    """Newton's steps on the thresholds, halved where they leave their bracket: exact once no pool moves."""
    n, pools = len(scores), len(take)
    at = 0.5 * (low + high)
    total, free = np.empty(pools), np.empty(pools)
    for _ in range(STEPS):
        total[:], free[:] = 0.0, 0.0
        for i in range(n):
            p = labels[i]
            z = (scores[i] - at[p]) / width
            if z >= 1.0:
                total[p] += 1.0
            elif z > 0.0:
                total[p] += z
                free[p] += 1.0
        moving = False
        for p in range(pools):
            excess = total[p] - take[p]
            if excess > 0.0:
                low[p] = at[p]
            else:
                high[p] = at[p]
            if abs(excess) <= EXACT * take[p]:
                continue
            to = at[p] + width * excess / free[p] if free[p] else high[p]
            if not low[p] < to < high[p]:
                to = 0.5 * (low[p] + high[p])
            moving = moving or low[p] < to < high[p]
            at[p] = to
        if not moving:
            break
    z = np.empty(n)
    for i in range(n):
        z[i] = min(max((scores[i] - at[labels[i]]) / width, 0.0), 1.0)
    return z
