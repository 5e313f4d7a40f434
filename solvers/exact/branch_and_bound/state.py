"""The compiled tree's state: where its numbers stand, its heap of open nodes, its incumbent."""

from __future__ import annotations

from numba import njit

# slots of the integer state
HEAP, FREE, NODES, CURRENT, STEPS, PROBES, SPLITS, GAINS, TREE, VECTORS = range(10)
# slots of the real state
UPPER, FLOOR, CUTOFF, GAP, NOISE, GAIN = range(6)


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
def accept(real, value):
    """Take a new incumbent value, and the bound that would prove it."""
    real[UPPER] = value
    real[CUTOFF] = value - max(real[GAP] * abs(value), real[NOISE])
