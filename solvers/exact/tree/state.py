"""The compiled tree's state: where its numbers stand, its open nodes, its incumbent.

Open nodes are on a heap of least bounds. When places for more run short they go on a stack instead,
whose nodes come first, so that the search is depth-first until there is room again.
"""

from __future__ import annotations

from numba import njit

# slots of the integer state
HEAP, FREE, NODES, CURRENT, STEPS, PROBES, SPLITS, GAINS, TREE, VECTORS = range(10)
STACK, RESERVE, SPARING, MADE = range(10, 14)
# slots of the real state
UPPER, FLOOR, CUTOFF, GAP, NOISE, GAIN, MARGIN = range(7)


@njit(cache=True, nogil=True)
def push(heap, state, lower, node):
    """Put an open node on the heap of least bounds."""
    i = state[HEAP]
    state[HEAP] += 1
    while i > 0:
        parent = (i - 1) >> 1
        if lower[heap[parent]] <= lower[node]:
            break
        heap[i] = heap[parent]
        i = parent
    heap[i] = node


@njit(cache=True, nogil=True)
def pop(heap, state, lower):
    """Take the open node of least bound."""
    top = heap[0]
    state[HEAP] -= 1
    size = state[HEAP]
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
def take(store, integers, real):
    """The open node to go on with, -1 if none is left: the newest of the stack, or the least bound.

    Nodes past the cutoff are dropped.
    """
    heap, lower = store.heap, store.lower
    while integers[STACK] > 0:
        node = heap[len(heap) - integers[STACK]]
        integers[STACK] -= 1
        if lower[node] < real[CUTOFF]:
            return node
        drop(store, integers, real, node, lower[node])
    if integers[HEAP] == 0:
        return -1
    node = pop(heap, integers, lower)
    if lower[node] < real[CUTOFF]:
        return node
    real[FLOOR] = min(real[FLOOR], lower[node])
    integers[HEAP] = 0
    return -1


@njit(cache=True, nogil=True)
def drop(store, integers, real, node, bound):
    """Close a node that is bounded so."""
    real[FLOOR] = min(real[FLOOR], bound)
    store.spare[integers[FREE]] = node
    integers[FREE] += 1


@njit(cache=True, nogil=True)
def stack(heap, integers, node):
    """Put an open node on the stack, which grows down from the end of the heap's array."""
    integers[STACK] += 1
    heap[len(heap) - integers[STACK]] = node


@njit(cache=True, nogil=True)
def accept(real, value):
    """Take a new incumbent value, and the bound that would prove it."""
    real[UPPER] = value
    real[CUTOFF] = value - max(real[GAP] * abs(value) - real[MARGIN], real[NOISE])
