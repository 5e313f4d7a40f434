"""Indicators of a relaxation, pool by pool: shares between 0 and 1 that rise with a common level."""

from __future__ import annotations

from solvers.runtime.tensors import Tensor, torch

TOLERANCE = {4: 1e-5, 8: 1e-9}
"""How far a pool's sum may be from its count, relative to the count, by bytes of a number."""
NARROW = 32
"""Pools of fewer entries are laid out side by side, so that sums run over whole rows."""
PASSES = 60
"""Updates of the levels at most."""


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
