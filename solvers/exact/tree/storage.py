"""The memory of one tree: its arrays grow as far as it goes, and go into a checkpoint and out of it."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from solvers.exact.tree.store import STATE, Log, Store

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
    """The arrays of one tree, which grow as far as its memory goes.

    Args:
        n: entries of the block.
        groups: its curvatures.
        columns: its right-hand sides.
        memory: bytes that all may take together, with the proof that is made of the log. What a tree starts
            with it gets in any case.
        record: whether a log is kept.

    Attributes:
        state: record of `STATE`.
        store: open nodes and splits.
        log: the proof as far as it goes.
    """

    def __init__(self, n: int, groups: int, columns: int, memory: int, record: bool) -> None:
        self.n, self.memory, self.record = n, memory, record
        self._proof = {NODES: 3 * n, VECTORS: 6 * groups * n * columns}
        self.state: Any = np.zeros(1, STATE).view(np.recarray)[0]
        self.state.current = -1
        self.store, self.log = _empty_store(n, groups), _empty_log(n)

    @property
    def bytes(self) -> int:
        """Bytes that all arrays take, the proof that is made of the log, and its making and checking."""
        held = sum(array.nbytes for arrays in (self.store, self.log) for array in arrays)
        proof = self._proof[NODES] * len(self.log.entry) + self._proof[VECTORS] * len(self.log.shares)
        return held + proof

    @property
    def least_open(self) -> float:
        """Least bound of an open node; infinite if there is none."""
        heap, state = self.store.heap, self.state
        nodes = [*heap[len(heap) - state["stack"] :], *heap[: min(1, state["heap"])]]
        if state["current"] >= 0:
            nodes.append(state["current"])
        return float(min((self.store.lower[node] for node in nodes), default=np.inf))

    def room_for_nodes(self) -> bool:
        """More places for open nodes; whether there are."""
        old, state = len(self.store.lower), self.state
        size = self._size(self.store, PLACES, old, max(2 * old, 256 + self.n))
        if size <= old:
            return False
        stacked = self.store.heap[old - state.stack :].copy()
        self.store = stretched(self.store, PLACES, size)
        self.store.heap[size - len(stacked) :] = stacked
        if self.record:
            self.log = stretched(self.log, ("place",), size)
        self.store.spare[state.free : state.free + size - old] = np.arange(size - 1, old - 1, -1)
        state.free += size - old
        state.reserve = 0
        return True

    def room_for_splits(self) -> bool:
        """More places for splits, or those of splits that no node needs; whether there are."""
        old = len(self.store.roots)
        if old and not self.record:
            self._forget_splits()
            if self.state.splits <= 0.75 * old:
                return True
        size = self._size(self.store, SPLITS, old, max(2 * old, 16))
        if size > old:
            self.store = stretched(self.store, SPLITS, size)
        return size > old

    def room_for_log(self) -> bool:
        """Whether the log has room for a node, after making it longer if need be."""
        n, state = self.n, self.state
        for names, old, needed, more in (
            (NODES, len(self.log.entry), state.tree + 6 * n + 8, 16 * n + 16),
            (VECTORS, len(self.log.shares), state.vectors + 6, 256),
        ):
            if needed > old:
                size = self._size(self.log, names, old, 2 * old + more)
                if size < needed:
                    return False
                self.log = stretched(self.log, names, size)
        return True

    def release(self) -> None:
        """Give back what a finished search does not need."""
        self.store = stretched(self.store, PLACES, 0)
        self.state.free = 0
        if not self.record:
            self.store = stretched(self.store, SPLITS, 1)
            self.state.splits = 1
        self.log = stretched(self.log, ("place",), 0)

    def clear(self) -> None:
        """Give back everything."""
        self.store, self.log = _empty_store(self.n, self.store.d.shape[1]), _empty_log(self.n)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it, by name, for a checkpoint."""
        log = {f"log {name}": array for name, array in self.log._asdict().items()}
        return {"state": np.array([self.state], STATE), **self.store._asdict(), **log}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take what `arrays` gave, copied.

        Raises:
            ValueError: for arrays that no search could have left, which compiled code would follow astray.
        """
        empty: list[NDArray[Any]] = [*self.store, *self.log]
        self.state = arrays["state"].astype(STATE).view(np.recarray)[0]
        self.store = Store(**{name: arrays[name].copy() for name in Store._fields})
        self.log = Log(**{name: arrays[f"log {name}"].copy() for name in Log._fields})
        state, store, log = self.state, self.store, self.log
        given: list[NDArray[Any]] = [*store, *log]
        pairs = zip(given, empty, strict=True)
        if any(array.shape[1:] != other.shape[1:] or array.dtype != other.dtype for array, other in pairs):
            raise ValueError("its arrays have other shapes")
        sizes = [
            {len(getattr(arrays, name)) for name in names}
            for arrays, names in ((store, PLACES), (store, SPLITS), (log, NODES), (log, VECTORS))
        ]
        if any(len(size) > 1 for size in sizes):
            raise ValueError("its arrays have other lengths")
        places, splits, nodes, vectors = (size.pop() for size in sizes)
        counts = [state[name] for name in STATE.names or () if STATE[name] == np.int64 and name != "current"]
        if min(counts) < 0 or not (
            state.heap + state.stack <= places and -1 <= state.current < places and state.free <= places
            and 1 <= state.splits <= splits and state.tree <= nodes and state.vectors <= vectors
            and len(log.place) in ((places,) if self.record else (0,))
        ):  # fmt: skip
            raise ValueError("its counts are out of range")
        for pointers, end in (
            (store.heap, places), (store.spare, places), (store.owner, splits), (log.place, max(nodes, 1)),
            (np.abs(store.sides), self.n + 1), (log.split, splits),
        ):  # fmt: skip
            if ((pointers < 0) | (pointers >= end)).any():
                raise ValueError("its nodes point nowhere")
        state.reserve = state.sparing = 0

    def _size(self, arrays: Store | Log, names: tuple[str, ...], old: int, wanted: int) -> int:
        """How many elements there may be, with the copies that more of them take; all wanted at the start."""
        if old == 0:
            return wanted
        each = [getattr(arrays, name)[:0] for name in names]
        sizes = [array.itemsize * int(np.prod(array.shape[1:])) for array in each]
        left = (self.memory - self.bytes - old * max(sizes)) // (sum(sizes) + self._proof.get(names, 0))
        return min(wanted, old + max(0, left)) if left >= 0.1 * old else old

    def _forget_splits(self) -> None:
        """Drop the splits that no open node uses; the first one, the root's, stays."""
        store, state = self.store, self.state
        current = np.array([state.current] if state.current >= 0 else [], np.int32)
        heap, stacked = store.heap[: state.heap], store.heap[len(store.heap) - state.stack :]
        nodes = np.concatenate([heap, stacked, current])
        used, owner = np.unique(np.append(np.int32(0), store.owner[nodes]), return_inverse=True)
        store.d[: len(used)], store.roots[: len(used)] = store.d[used], store.roots[used]
        store.owner[nodes] = owner[1:]
        state.splits = len(used)


def stretched(arrays: Arrays, names: tuple[str, ...], size: int) -> Arrays:
    """The same with more room (or less) in some arrays, each copied and released before the next."""
    for name in names:
        array: Any = getattr(arrays, name)
        longer = np.zeros((size, *array.shape[1:]), array.dtype)
        longer[: len(array)] = array[:size]
        arrays = arrays._replace(**{name: longer})
    return arrays


def _empty_store(n: int, groups: int) -> Store:
    i32 = np.int32
    return Store(
        np.empty((0, n), np.int8), np.empty((0, n), np.float32), np.empty(0), np.empty(0, i32), np.empty(0),
        np.empty(0, i32), np.empty(0, i32), np.empty(0, i32),
        np.empty((0, groups, n)), np.empty((0, n), np.int8),
    )  # fmt: skip


def _empty_log(n: int) -> Log:
    i32 = np.int32
    return Log(
        np.empty(0, i32), np.empty(0, i32), np.empty(0, i32), np.empty(0, i32), np.empty((0, n), np.float32),
        np.empty(0, i32), np.empty(0, i32),
    )  # fmt: skip
