"""The proof that a search leaves behind: its tree, and the shares at which every bound was found."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.exact.tree.state import TREE, VECTORS

IMPOSSIBLE = -1


class Log(NamedTuple):
    """A proof tree under construction; all of length zero when nothing is recorded.

    Attributes:
        entry: `[T]` entry branched on, -1 for a leaf or an open node.
        pruned: `[T]` child where it is pruned.
        kept: `[T]` child where it is kept.
        vector: `[T]` row of `shares` whose bound is the node's, `IMPOSSIBLE` if no mask fits there.
        shares: `[V, n]` z of a bound, fixed entries at 0 and 1.
        split: `[V]` the split that the bound was found with.
        place: `[places]` tree node of every open node.
    """

    entry: NDArray[np.int32]
    pruned: NDArray[np.int32]
    kept: NDArray[np.int32]
    vector: NDArray[np.int32]
    shares: NDArray[np.float32]
    split: NDArray[np.int32]
    place: NDArray[np.int32]


@njit(cache=True, nogil=True)
def keep_shares(log, integers, z, free, root, split):
    """Record where a bound was found; its row."""
    row = integers[VECTORS]
    integers[VECTORS] += 1
    for i in range(len(root)):
        log.shares[row, i] = 1.0 if root[i] > 0 else 0.0
    for i in range(len(free)):
        log.shares[row, free[i]] = z[i]
    log.split[row] = split
    return row


@njit(cache=True, nogil=True)
def fork(log, integers, at, entry, side, vector):
    """Branch a tree node: its child on `side` goes on, the other one has the bound of `vector`."""
    first = integers[TREE]
    integers[TREE] += 2
    for child in (first, first + 1):
        log.entry[child] = log.pruned[child] = log.kept[child] = -1
    log.vector[first], log.vector[first + 1] = vector, log.vector[at]
    log.entry[at] = entry
    log.pruned[at] = first if side > 0 else first + 1
    log.kept[at] = first + 1 if side > 0 else first
    log.vector[at] = -1
    return first + 1


@njit(cache=True, nogil=True)
def fork_fixed(log, integers, at, before, after, free, vector):
    """Branch on every entry that was free before and is fixed after; the node where it goes on."""
    for i in range(len(free)):
        if before[i] == 0 and after[i] != 0:
            at = fork(log, integers, at, free[i], after[i], vector)
    return at
