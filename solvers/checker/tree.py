"""Whether a tree's leaves cover every mask, and what each leaf fixes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
KEPT, PRUNED = np.int8(1), np.int8(-1)

LARGEST = 1 << 34
"""Nodes times entries of a tree that is looked at, in a byte each."""


class Broken(Exception):
    """A tree that does not cover every mask; the message says where."""


def leaves_of(n: int, entry: Index, pruned: Index, kept: Index) -> tuple[Index, NDArray[np.int8]]:
    """Walk a tree from its root, node 0.

    Every inner node splits the masks that respect its path in two by an entry that the path has not fixed,
    so that the leaves' masks partition all masks, whatever the budget. Each node must be reached once.

    Args:
        n: number of entries.
        entry: `[T]` entry that each node branches on, -1 for a leaf.
        pruned: `[T]` child where it is pruned.
        kept: `[T]` child where it is kept.

    Returns:
        Node of every leaf, and `[leaves, n]` its fixings: `KEPT`, `PRUNED`, or 0 where free.

    Raises:
        Broken: naming a node and what is wrong with it.
    """
    count = len(entry)
    if not count:
        raise Broken("the tree has no root")
    if count * n > LARGEST:
        raise Broken(f"the tree has {count} nodes over {n} entries, more than can be looked at")
    inner = entry >= 0
    _require((entry >= -1) & (entry < n), "branches on no entry")
    for side, child in (("pruned", pruned), ("kept", kept)):
        _require(~inner | ((child > 0) & (child < count)), f"has no child where its entry is {side}")
        _require(inner | (child == -1), f"is a leaf, but has a child where an entry is {side}")
    parents = np.bincount(np.concatenate([pruned[inner], kept[inner]]), minlength=count)
    _require((parents <= 1), "has two parents")
    nodes: Index = np.zeros(1, np.int64)
    fixings = np.zeros((1, n), np.int8)
    found, fixed = [], []
    reached = 0
    while len(nodes):
        reached += len(nodes)
        leaf = ~inner[nodes]
        found.append(nodes[leaf])
        fixed.append(fixings[leaf])
        nodes, fixings = nodes[~leaf], fixings[~leaf]
        on = entry[nodes]
        again = fixings[np.arange(len(nodes)), on] != 0
        if again.any():
            raise Broken(f"node {nodes[again][0]} branches again on entry {on[again][0]}")
        children = []
        for child, mark in ((pruned, PRUNED), (kept, KEPT)):
            fixings_of_child = fixings.copy()
            fixings_of_child[np.arange(len(nodes)), on] = mark
            children.append((child[nodes], fixings_of_child))
        nodes = np.concatenate([c for c, _ in children])
        fixings = np.concatenate([f for _, f in children])
    if reached != count:
        raise Broken(f"{count - reached} of {count} nodes can't be reached from the root")
    return np.concatenate(found), np.concatenate(fixed)


def _require(fine: NDArray[np.bool_], what: str) -> None:
    if not fine.all():
        raise Broken(f"node {np.flatnonzero(~fine)[0]} {what}")
