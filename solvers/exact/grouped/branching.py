"""Where a tree of few, strong nodes branches: where both children should gain, by the relaxation's curvature.

Fixing an entry moves its share z to 0 or 1. With c the share's compliance, by which it falls a unit of a
price on it, the relaxation rises by `z^2 / 2c` or `(1 - z)^2 / 2c`, to second order: what strong branching
would measure, for one linear system a node. Pseudo-costs on top of it were no better.
"""

from __future__ import annotations

import numpy as np

from solvers.hessian import Array

SLOW = 0.1
"""Share of the way to the cutoff that a bound should rise by branching; else it is worth more steps before,
which take it a tenth to a quarter of the way for less than what both children take."""
LEAST = 1e-12
"""Share of the smaller part of an entry that decides where nothing should gain."""


def rises(z: Array, compliance: Array) -> Array:
    """`[2, f]` by how much bounds should rise by pruning and by keeping entries of shares `z [f]`."""
    size = np.maximum(2.0 * compliance, 1e-300)
    return np.array([z**2 / size, (1.0 - z) ** 2 / size])


def choose(gains: Array, z: Array, room: float) -> int:
    """The entry whose two sides together should gain the most.

    Args:
        gains: `[2, f]` of the sides.
        z: `[f]` the shares kept.
        room: from the bound to the cutoff; to gain more is of no use.
    """
    down, up = np.minimum(gains, room)
    return int(np.argmax(down * up + LEAST * room**2 * np.minimum(z, 1.0 - z)))


def slow(gains: Array, z: Array, room: float) -> bool:
    """Whether the worse child of the entry that is chosen gains little of the room; see `choose`."""
    return room > 0.0 and float(gains[:, choose(gains, z, room)].min()) < SLOW * room
