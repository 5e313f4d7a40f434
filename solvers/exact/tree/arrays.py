"""What the compiled tree works on: a block, and the arrays of its open nodes and splits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.node.restriction import Part
from solvers.hessian import Array

Integers = NDArray[np.int64]
Places = NDArray[np.int32]


class Whole(NamedTuple):
    """The block that a tree searches.

    Attributes:
        part: all of it.
        chains: interchangeable entries, -1 after each chain; see `fixing.follow`.
        halt: `[1]` set from outside to end a slice, even amid a node.
    """

    part: Part
    chains: Integers
    halt: NDArray[np.bool_]


class Store(NamedTuple):
    """Open nodes and splits, a place each.

    Attributes:
        fixes: `[places, n]` 1 kept, -1 pruned, 0 free.
        shares: `[places, n]` relaxed indicators to start from.
        lower: `[places]` bound known.
        sides: `[places]` entry branched on plus one, negative where pruned, 0 if none.
        parents: `[places]` how far that branching moved the entry's share.
        owner: `[places]` split that the node uses.
        heap: open nodes by rising bound from its start, and those of the stack from its end.
        spare: free places.
        d: `[splits, g, n]` splits, zero on entries that were fixed by then.
        roots: `[splits, n]` fixings under which a split is valid.
    """

    fixes: NDArray[np.int8]
    shares: NDArray[np.float32]
    lower: Array
    sides: Places
    parents: Array
    owner: Places
    heap: Places
    spare: Places
    d: Array
    roots: NDArray[np.int8]
