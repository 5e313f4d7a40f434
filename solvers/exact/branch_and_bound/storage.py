"""Memory of one tree: empty arrays, longer ones, and splits that no open node needs."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from solvers.exact.branch_and_bound import state
from solvers.exact.branch_and_bound.log import Log
from solvers.exact.branch_and_bound.tree import Integers, Store

Arrays = TypeVar("Arrays", Store, Log)

PLACES = ("fixes", "shares", "lower", "sides", "parents", "owner", "heap", "spare")
"""Arrays of a store with an element for every place."""
SPLITS = ("d", "roots")
"""Arrays of a store with an element for every split."""
NODES = ("entry", "pruned", "kept", "vector")
"""Arrays of a log with an element for every node of the proof."""
VECTORS = ("shares", "split")
"""Arrays of a log with an element for every point of the proof."""


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


def occupied(*holders: Store | Log) -> int:
    """Bytes that all arrays take."""
    return sum(array.nbytes for arrays in holders for array in arrays)


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
