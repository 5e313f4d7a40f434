"""N:M sparsity: whether of every M neighbours at most N are not zero, which sparse hardware makes use of."""

from __future__ import annotations

from torch import Tensor

SIZES = (2, 4, 8, 16)
"""Group sizes that are tried."""
WIDE = 4
"""Of larger groups only patterns that leave half at most, for others say next to nothing."""


def most(zero: Tensor, size: int) -> Tensor | None:
    """Entries that are not zero in every group of so many neighbours along the last dimension, or None.

    Args:
        zero: bool, True where zero.
        size: of the groups; None comes back if it does not divide the dimension.
    """
    if not zero.numel() or zero.shape[-1] % size:
        return None
    return (~zero).reshape(-1, size).sum(dim=1)


def pattern(zero: Tensor) -> str:
    """The tightest `N:M` that holds along the last dimension, of the smallest M; empty if there is none."""
    found, left = "", 1.0
    for size in SIZES:
        counts = most(zero, size)
        if counts is None:
            continue
        keep = int(counts.max())
        if 0 < keep < left * size and (size <= WIDE or 2 * keep <= size):
            found, left = f"{keep}:{size}", keep / size
    return found


def conforming(zero: Tensor, keep: int, of: int) -> float | None:
    """Share of the groups of `of` neighbours along the last dimension with at most `keep` not zero."""
    counts = most(zero, of)
    return None if counts is None else float((counts <= keep).double().mean())
