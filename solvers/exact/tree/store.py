"""The arrays of one tree, that compiled code works on: its counters, open nodes, splits and proof.

Open nodes are on a heap of least bounds (best-first). Where places for more run short they go on a stack
instead, whose nodes come first, so that the search is depth-first until there is room again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.node.restriction import Part
from solvers.hessian import Array
from solvers.runtime.compiled import njit

STATE = np.dtype(
    [
        ("upper", float),  # value of the incumbent
        ("cutoff", float),  # a bound that proves it, to within the gap; nodes past it are closed
        ("floor", float),  # least bound of all that was closed
        ("gap", float),  # relative gap to prove
        ("noise", float),  # what rounding may move a bound by
        ("margin", float),  # part of the gap that restricting blocks to subtrees costs
        ("gain", float),  # what branchings have raised bounds by, in all
        ("gains", int),  # branchings that count in it
        ("nodes", int),  # processed
        ("current", int),  # place of the node to go on with; -1 for the next open one
        ("heap", int),  # open nodes on the heap
        ("stack", int),  # and on the stack
        ("free", int),  # places without a node
        ("reserve", int),  # free places below which the search is depth-first; 0 while memory may grow
        ("splits", int),  # stored
        ("made", int),  # splits made so far, those forgotten included
        ("sparing", int),  # nodes until which the search does without new splits
        ("steps", int),  # Newton steps of nodes
        ("probes", int),  # children bounded to learn pseudo-costs
        ("tree", int),  # nodes of the proof
        ("vectors", int),  # points of the proof
    ]
)
"""The counters of a search; a record of this type is `state` below."""


class Effort(NamedTuple):
    """How much work is put into one node.

    Attributes:
        probe: probes of an entry on either side before its pseudo-costs are trusted (reliability).
        depth: entries fixed since the last split that make a new one worth a try; none if negative.
        worth: branchings between bound and cutoff, at the mean gain, that do.
        steps: Newton steps of a new split.
    """

    probe: int
    depth: int
    worth: float
    steps: int


class Search(NamedTuple):
    """What every node of a tree shares.

    Attributes:
        part: the block.
        chains: interchangeable entries, -1 after each chain; see `fixing.follow`.
        halt: `[1]` set from outside to end a slice, even amid a node.
        costs: `[4, n]` pseudo-costs: sums and counts for pruning, sums and counts for keeping.
        incumbent: `[n]` best decisions, 1.0 where kept.
        effort: work for a node.
    """

    part: Part
    chains: NDArray[np.int64]
    halt: NDArray[np.bool_]
    costs: Array
    incumbent: Array
    effort: Effort


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
    sides: NDArray[np.int32]
    parents: Array
    owner: NDArray[np.int32]
    heap: NDArray[np.int32]
    spare: NDArray[np.int32]
    d: Array
    roots: NDArray[np.int8]


class Log(NamedTuple):
    """A proof tree under construction, and the shares at which its bounds were found; empty if not recorded.

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
def push(store, state, node):
    """Put an open node on the heap of least bounds."""
    heap, lower = store.heap, store.lower
    i = state.heap
    state.heap += 1
    while i > 0:
        parent = (i - 1) >> 1
        if lower[heap[parent]] <= lower[node]:
            break
        heap[i] = heap[parent]
        i = parent
    heap[i] = node


@njit(cache=True, nogil=True)
def pop(store, state):
    """Take the open node of least bound."""
    heap, lower = store.heap, store.lower
    top = heap[0]
    state.heap -= 1
    size = state.heap
    node = heap[size]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and lower[heap[child + 1]] < lower[heap[child]]:
            child += 1
        if lower[node] <= lower[heap[child]]:
            break
        heap[i] = heap[child]
        i = child
    if size > 0:
        heap[i] = node
    return top


@njit(cache=True, nogil=True)
def take(store, state):
    """The node to go on with: the one plunged into, else the stack's newest, else the one of least bound.

    -1 if none is left. Open nodes past the cutoff are dropped.
    """
    node = state.current
    state.current = -1
    if node >= 0:
        return node
    while state.stack > 0:
        node = store.heap[len(store.heap) - state.stack]
        state.stack -= 1
        if store.lower[node] < state.cutoff:
            return node
        drop(store, state, node, store.lower[node])
    if state.heap == 0:
        return -1
    node = pop(store, state)
    if store.lower[node] < state.cutoff:
        return node
    state.floor = min(state.floor, store.lower[node])
    state.heap = 0
    return -1


@njit(cache=True, nogil=True)
def drop(store, state, node, bound):
    """Close a node that is bounded so."""
    state.floor = min(state.floor, bound)
    store.spare[state.free] = node
    state.free += 1


@njit(cache=True, nogil=True)
def stack(store, state, node):
    """Put an open node on the stack, which grows down from the end of the heap's array."""
    state.stack += 1
    store.heap[len(store.heap) - state.stack] = node


@njit(cache=True, nogil=True)
def accept(state, value):
    """Take a new incumbent value, and the bound that would prove it."""
    state.upper = value
    state.cutoff = value - max(state.gap * abs(value) - state.margin, state.noise)
