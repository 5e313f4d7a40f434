"""Where a tree of few, strong nodes branches: by pseudo-costs, the mean of all where one has none yet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.hessian import Array

LEAST = 1e-2
"""Moves of a share count for at least so much."""


class Costs:
    """Pseudo-costs (Benichou et al. 1971): what pruning and keeping an entry has raised bounds by.

    Attributes:
        sums: `[2, n]` of gains a unit of the share moved, of pruning and of keeping.
        counts: `[2, n]` how often.
    """

    def __init__(self, n: int) -> None:
        self.sums, self.counts = np.zeros((2, n)), np.zeros((2, n))

    def learn(self, entry: int, side: int, gain: float, moved: float) -> None:
        """What fixing an entry, kept (side 1) or pruned (-1), has gained."""
        row = 1 if side > 0 else 0
        self.sums[row, entry] += max(gain, 0.0) / max(moved, LEAST)
        self.counts[row, entry] += 1.0

    def choose(self, names: NDArray[np.int64], z: Array, room: float) -> int:
        """The place of the entry whose two sides together should gain the most, as far as `room`.

        Args:
            names: `[f]` entries to choose from.
            z: `[f]` the shares kept.
            room: from the bound to the cutoff.
        """
        total = self.counts.sum()
        mean = float(self.sums.sum() / total) if total else 1.0
        own = self.counts[:, names]
        each = np.where(own > 0.0, self.sums[:, names] / np.maximum(own, 1.0), mean or 1.0)
        down, up = np.minimum(each[0] * z, room), np.minimum(each[1] * (1.0 - z), room)
        return int(np.argmax(down * up + 1e-12 * np.minimum(z, 1.0 - z)))
