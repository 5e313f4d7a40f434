"""The arrays of one tree, which grow as far as its memory goes, and splits that no open node needs."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from solvers.exact.tree import state
from solvers.exact.tree.arrays import Integers, Store
from solvers.exact.tree.log import Log

Arrays = TypeVar("Arrays", Store, Log)

PLACES = ("fixes", "shares", "lower", "sides", "parents", "owner", "heap", "spare")
"""Arrays of a store with an element for every place."""
SPLITS = ("d", "roots")
"""Arrays of a store with an element for every split."""
NODES = ("entry", "pruned", "kept", "vector")
"""Arrays of a log with an element for every node of the proof."""
VECTORS = ("shares", "split")
"""Arrays of a log with an element for every point of the proof."""


class Storage:
    """Open nodes, splits and the log of one tree.

    Args:
        n: entries of the block.
        groups: its curvatures.
        columns: its right-hand sides.
        memory: bytes that all may take together, with the proof that is made of the log. What a tree starts
            with it gets in any case.
        record: whether a log is kept.

    Attributes:
        integers: counts of all; see `state`.
        store: open nodes and splits.
        log: the proof as far as it goes.
    """

    def __init__(self, n: int, groups: int, columns: int, memory: int, record: bool) -> None:
        self.n, self.memory, self.record = n, memory, record
        self._proof = {NODES: 3 * n, VECTORS: 6 * groups * n * columns}
        self.integers = np.zeros(14, np.int64)
        self.integers[state.CURRENT] = -1
        self.store, self.log = empty_store(n, groups), empty_log(n)

    @property
    def bytes(self) -> int:
        """Bytes that all arrays take, the proof that is made of the log, and its making and checking."""
        held = sum(array.nbytes for arrays in (self.store, self.log) for array in arrays)
        proof = self._proof[NODES] * len(self.log.entry) + self._proof[VECTORS] * len(self.log.shares)
        return held + proof

    def room_for_nodes(self) -> bool:
        """More places for open nodes; whether there are."""
        old = len(self.store.lower)
        size = self._size(self.store, PLACES, old, max(2 * old, 256 + self.n))
        if size <= old:
            return False
        stack = self.store.heap[old - int(self.integers[state.STACK]) :].copy()
        self.store = stretched(self.store, PLACES, size)
        self.store.heap[size - len(stack) :] = stack
        if self.record:
            self.log = stretched(self.log, ("place",), size)
        free = int(self.integers[state.FREE])
        self.store.spare[free : free + size - old] = np.arange(size - 1, old - 1, -1)
        self.integers[state.FREE] = free + size - old
        self.integers[state.RESERVE] = 0
        return True

    def room_for_splits(self) -> bool:
        """More places for splits, or those of splits that no node needs; whether there are."""
        old = len(self.store.roots)
        if old and not self.record:
            forget_splits(self.store, self.integers)
            if self.integers[state.SPLITS] <= 0.75 * old:
                return True
        size = self._size(self.store, SPLITS, old, max(2 * old, 16))
        if size > old:
            self.store = stretched(self.store, SPLITS, size)
        return size > old

    def room_for_log(self) -> bool:
        """Whether the log has room for a node, after making it longer if need be."""
        n, log, slots = self.n, self.log, self.integers
        if slots[state.TREE] + 6 * n + 8 > len(log.entry):
            size = self._size(log, NODES, len(log.entry), 2 * len(log.entry) + 16 * n + 16)
            if size < slots[state.TREE] + 6 * n + 8:
                return False
            self.log = log = stretched(log, NODES, size)
        if slots[state.VECTORS] + 6 > len(log.shares):
            size = self._size(log, VECTORS, len(log.shares), 2 * len(log.shares) + 256)
            if size < slots[state.VECTORS] + 6:
                return False
            self.log = stretched(log, VECTORS, size)
        return True

    def _size(self, arrays: Store | Log, names: tuple[str, ...], old: int, wanted: int) -> int:
        """How many elements there may be, with the copies that more of them take; all wanted at the start."""
        if old == 0:
            return wanted
        each, largest = weight(arrays, names)
        each += self._proof.get(names, 0)
        left = self.memory - self.bytes - old * largest
        return min(wanted, old + max(0, left // each)) if left // each >= 0.1 * old else old

    def release(self) -> None:
        """Give back what a finished search does not need."""
        self.store = stretched(self.store, PLACES, 0)
        if not self.record:
            self.store = stretched(self.store, SPLITS, 1)
            self.integers[state.SPLITS] = 1
        self.log = stretched(self.log, ("place",), 0)

    def clear(self) -> None:
        """Give back everything."""
        self.store, self.log = stretched(stretched(self.store, PLACES, 0), SPLITS, 0), empty_log(self.n)


def empty_store(n: int, groups: int) -> Store:
    """A store without places or splits."""
    i32 = np.int32
    return Store(
        np.empty((0, n), np.int8), np.empty((0, n), np.float32), np.empty(0), np.empty(0, i32), np.empty(0),
        np.empty(0, i32), np.empty(0, i32), np.empty(0, i32),
        np.empty((0, groups, n)), np.empty((0, n), np.int8),
    )  # fmt: skip


def empty_log(n: int) -> Log:
    """A log with room for nothing."""
    i32 = np.int32
    return Log(
        np.empty(0, i32), np.empty(0, i32), np.empty(0, i32), np.empty(0, i32), np.empty((0, n), np.float32),
        np.empty(0, i32), np.empty(0, i32),
    )  # fmt: skip


def weight(arrays: Store | Log, names: tuple[str, ...]) -> tuple[int, int]:
    """Bytes of an element over all these arrays, and over the one where it is largest."""
    each = [getattr(arrays, name)[:0] for name in names]
    sizes = [array.itemsize * int(np.prod(array.shape[1:])) for array in each]
    return sum(sizes), max(sizes)


def stretched(arrays: Arrays, names: tuple[str, ...], size: int) -> Arrays:
    """The same with more room (or less) in some arrays, each copied and released before the next."""
    for name in names:
        array: Any = getattr(arrays, name)
        longer = np.zeros((size, *array.shape[1:]), array.dtype)
        longer[: len(array)] = array[:size]
        arrays = arrays._replace(**{name: longer})
    return arrays


def open_nodes(store: Store, integers: Integers) -> NDArray[np.int32]:
    """Places of all open nodes: the heap's, the stack's from its bottom, and the one to go on with."""
    size = len(store.heap)
    stack = store.heap[size - int(integers[state.STACK]) :][::-1]
    current = integers[state.CURRENT : state.CURRENT + 1]
    return np.concatenate([store.heap[: integers[state.HEAP]], stack, current[current >= 0]]).astype(np.int32)


def least_open(store: Store, integers: Integers) -> float:
    """Least bound of an open node; infinite if there is none."""
    size = len(store.heap)
    nodes = store.heap[size - int(integers[state.STACK]) :].tolist()
    nodes += store.heap[: min(1, integers[state.HEAP])].tolist()
    if integers[state.CURRENT] >= 0:
        nodes.append(int(integers[state.CURRENT]))
    return float(min((store.lower[node] for node in nodes), default=np.inf))


def forget_splits(store: Store, integers: Integers) -> None:
    """Drop the splits that no open node uses; the first one, the root's, stays."""
    nodes = open_nodes(store, integers)
    used, owner = np.unique(np.append(np.int32(0), store.owner[nodes]), return_inverse=True)
    store.d[: len(used)], store.roots[: len(used)] = store.d[used], store.roots[used]
    store.owner[nodes] = owner[1:]
    integers[state.SPLITS] = len(used)
