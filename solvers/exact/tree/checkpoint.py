"""Trees to arrays and back, so that a search goes on where it was."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.exact.tree import state
from solvers.exact.tree.block_tree import BlockTree
from solvers.exact.tree.storage import NODES, PLACES, SPLITS, VECTORS, open_nodes, stretched
from solvers.form.blocks import Block
from solvers.runtime.checkpoint import Arrays, Checkpoint

logger = logging.getLogger(__name__)

State = Callable[[], Iterable[tuple[str, list[NDArray[Any]]]]]

ROWS = ("fixes", "shares", "lower", "sides", "parents", "owner")
"""Arrays of a store of which open nodes have an element each."""


class Keeper:
    """Keeps a search in a file, if there is one. A full disk does not end a search: it is told and noted.

    Args:
        checkpoint: the file, or None.
        state: gives what to keep, as `Checkpoint.save` takes it.

    Attributes:
        stats: how often it was written, and why the last writing failed, if it did.
    """

    def __init__(self, checkpoint: Checkpoint | None, state: State) -> None:
        self.checkpoint, self.state = checkpoint, state
        self.stats: dict[str, Any] = {}
        if checkpoint is not None:
            self.stats["checkpoints"] = 0
            self._told = False
            self.save()

    def due(self) -> bool:
        """Whether it is time to write."""
        return self.checkpoint is not None and self.checkpoint.due

    def save(self) -> None:
        """Write, while no tree is at work."""
        if self.checkpoint is None:
            return
        try:
            self.checkpoint.save(self.state())
            self.stats["checkpoints"] += 1
            self.stats.pop("checkpoint_error", None)
        except OSError as error:
            why = error.strerror or str(error)
            if not self._told:
                logger.warning("checkpoint %s can't be written now: %s", self.checkpoint.path, why)
                self._told = True
            self.stats["checkpoint_error"] = why
            self.checkpoint.put_off()


def freeze(trees: Sequence[BlockTree]) -> Iterator[tuple[str, list[NDArray[Any]]]]:
    """All that the trees' further course depends on, as `Checkpoint.save` takes it.

    Open nodes are renumbered by their place on the heap, then on the stack; their order stays.
    """
    yield "integers", [tree.integers[None] for tree in trees]
    yield "real", [tree.real[None] for tree in trees]
    yield "costs", [tree.costs for tree in trees]
    yield "incumbent", [tree.incumbent for tree in trees]
    facts = [(t.formation, t.seconds, t.depth, t.done) for t in trees]
    yield "facts", [np.array([fact], np.float64) for fact in facts]
    nodes = [open_nodes(tree.store, tree.integers) for tree in trees]
    for name in ROWS:
        yield name, [getattr(tree.store, name)[at] for tree, at in zip(trees, nodes, strict=True)]
    for name in SPLITS:
        yield name, [getattr(tree.store, name)[: tree.integers[state.SPLITS]] for tree in trees]
    for name in NODES:
        yield f"log_{name}", [getattr(tree.log, name)[: tree.integers[state.TREE]] for tree in trees]
    for name in VECTORS:
        yield f"log_{name}", [getattr(tree.log, name)[: tree.integers[state.VECTORS]] for tree in trees]
    yield (
        "place",
        [tree.log.place[at if tree.record else at[:0]] for tree, at in zip(trees, nodes, strict=True)],
    )


def thaw(
    found: Sequence[Block], arrays: Arrays, checkpoint: Checkpoint, make: Callable[[Block], BlockTree]
) -> list[BlockTree]:
    """The trees that `freeze` was given.

    Args:
        found: their blocks.
        arrays: as `Checkpoint.load` gives them.
        checkpoint: where they are from, for complaints.
        make: an empty tree of a block.

    Raises:
        ValueError: if the arrays don't fit.
    """
    trees = [make(block) for block in found]
    try:
        if arrays["integers"].shape != (len(trees), len(trees[0].integers)):
            raise ValueError(f"{len(arrays['integers'])} trees instead of {len(trees)}")
        at: dict[str, int] = {}
        for i, tree in enumerate(trees):
            _restore(tree, i, arrays, at)
        left = [name for name, start in at.items() if start != len(arrays[name])]
        if left:
            raise ValueError(f"{left[0]} is too long")
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise checkpoint.damaged(str(error)) from None
    return trees


def _restore(tree: BlockTree, i: int, arrays: Arrays, at: dict[str, int]) -> None:
    def part(name: str, count: int) -> NDArray[Any]:
        start = at.get(name, 0)
        at[name] = start + count
        if start + count > len(arrays[name]):
            raise ValueError(f"{name} is too short")
        return arrays[name][start : start + count]

    slots = tree.integers
    slots[:], tree.real[:] = arrays["integers"][i], arrays["real"][i]
    tree.costs[:], tree.incumbent[:] = part("costs", 4), part("incumbent", tree.block.n)
    tree.formation, tree.seconds, depth, done = arrays["facts"][i].tolist()
    tree.depth, tree.done = int(depth), bool(done)
    current = int(slots[state.CURRENT] >= 0)
    heap, stack = int(slots[state.HEAP]), int(slots[state.STACK])
    count = heap + stack + current
    splits, nodes, vectors = (int(slots[slot]) for slot in (state.SPLITS, state.TREE, state.VECTORS))
    if min(heap, stack, nodes, vectors) < 0 or splits < 1:
        raise ValueError("negative counts")
    places = 0 if tree.done else count + count // 4 + 2 * tree.block.n + 256
    tree.storage.store = stretched(tree.store, PLACES, places)
    tree.storage.store = stretched(tree.store, SPLITS, splits if tree.done else splits + 16)
    for name in ROWS:
        getattr(tree.store, name)[:count] = part(name, count)
    for name in SPLITS:
        getattr(tree.store, name)[:splits] = part(name, splits)
    owner, sides = tree.store.owner[:count], tree.store.sides[:count]
    if ((owner < 0) | (owner >= splits) | (np.abs(sides) > tree.block.n)).any():
        raise ValueError("nodes point nowhere")
    tree.store.heap[:heap] = np.arange(heap)
    tree.store.heap[places - stack :] = np.arange(heap, heap + stack)[::-1]
    tree.store.spare[: places - count] = np.arange(places - 1, count - 1, -1)
    slots[state.FREE] = places - count
    slots[state.CURRENT] = heap + stack if current else -1
    slots[[state.RESERVE, state.SPARING]] = 0
    _restore_log(tree, nodes, vectors, count, places, part)


def _restore_log(
    tree: BlockTree,
    nodes: int,
    vectors: int,
    count: int,
    places: int,
    part: Callable[[str, int], NDArray[Any]],
) -> None:
    log = stretched(tree.log, NODES, nodes)
    log = stretched(log, VECTORS, vectors)
    log = stretched(log, ("place",), places if tree.record else 0)
    for name in NODES:
        getattr(log, name)[:] = part(f"log_{name}", nodes)
    for name in VECTORS:
        getattr(log, name)[:] = part(f"log_{name}", vectors)
    place = part("place", count if tree.record else 0)
    if ((place < 0) | (place >= nodes)).any():
        raise ValueError("nodes have no place in the proof")
    log.place[: len(place)] = place
    tree.storage.log = log
