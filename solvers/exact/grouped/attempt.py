"""A tree of many weak nodes on what a node leaves, for as long as it should end soon.

The bound of a best-first tree rises about evenly with the logarithm of its nodes. With K after N / 4 nodes
and L after N, it should reach a cutoff C after `N 4^((C - L) / (L - K))`. On rows of 100 inputs that is
right to within a factor of two from about 500 nodes on, and mostly too many before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.node.restriction import Part
from solvers.bounds.split import LOOSE, Split, split_blocks
from solvers.exact.grouped.node import left_of
from solvers.exact.grouped.open_node import Named, OpenNode
from solvers.exact.tree.block_tree import BlockTree, Settings

SLICE = 64
"""Nodes between two looks at the limits; the bound is noted when there are 1, 2, 4... times as many."""
ENOUGH = 1000.0
"""Nodes that take about as long as two with splits in groups."""
WORTH = 0.45
"""Share of the first gap that the root's split in groups closes where such a tree is the shorter one: it is
0.6 to 0.8 on rows that tens of its nodes prove, and 0.2 to 0.3 on those that take it hundreds."""
LONGEST = 1e8
"""Nodes foretold, times nodes done, up to which a tree goes on where that share is less."""


class Attempt:
    """A node that is left to a tree of diagonal splits; `plant` begins, and `resumed` goes on.

    Args:
        part: the whole row.
        rows: its name.
        node: what is left to the tree; no pool of it keeps all or nothing of what is free.
        rest: what is to be searched instead, should it be given up.
        limited: whether it is given up where its tree should take long, and not only where memory is short.
        settings: of the tree around it.

    Attributes:
        fix: `[n]` the node's fixings.
        lower: its bound so far.
        free: `[f]` the entries that it leaves free.
        tree: what searches them.
    """

    def __init__(
        self,
        part: Part,
        rows: NDArray[np.int64],
        node: OpenNode,
        rest: Sequence[OpenNode],
        limited: bool,
        settings: Settings,
    ) -> None:
        self.fix, self.lower, self.rest, self.limited = node.fix, node.lower, rest, limited
        self.free, block = left_of(part, rows, node.fix)
        self.tree = BlockTree(block, replace(settings, share=False))
        self._shown: list[float] = []

    def plant(self, split: Split | None, value: float, gap: float) -> Attempt:
        """Begin; returns the attempt itself.

        Args:
            split: of what is free, if there is one.
            value: that masks have to beat.
            gap: relative gap to prove.
        """
        block = self.tree.block
        split = split_blocks([block], tolerance=LOOSE)[0] if split is None else split
        pruned = block.smallest(split.z)  # some mask: the value that it has to beat is known
        self.tree.plant(split, pruned, value, gap)
        return self

    def work(self) -> None:
        """Process some nodes."""
        self.tree.work(SLICE)
        if self.tree.nodes >= SLICE << len(self._shown):
            self._shown.append(self.tree.bound)

    @property
    def bound(self) -> float:
        """Of the node, by now."""
        return max(self.lower, self.tree.bound)

    @property
    def size(self) -> float:
        """Nodes that it should take; infinite if its bound does not rise, 0 while there is no telling."""
        if len(self._shown) < 3:
            return 0.0
        before, _, last = self._shown[-3:]
        if last <= before:
            return math.inf
        steps = max(float(self.tree.state.cutoff) - last, 0.0) / (last - before)
        return float((SLICE << (len(self._shown) - 1)) * 4.0 ** min(steps, 100.0))

    @property
    def hopeless(self) -> bool:
        """Whether it is to be given up: the more nodes are done, the fewer may be to come."""
        done = max(self.tree.nodes, 1)
        return self.tree.full or (self.limited and self.size > max(2.0 * done, ENOUGH**2 / done))

    def better(self, bound: float, value: float) -> bool:
        """Whether to go on where the node's split in groups is at hand.

        Args:
            bound: of that.
            value: that masks have to beat.
        """
        little = bound - self.lower < WORTH * (value - self.lower)
        return self.bound > bound or (little and self.size * max(self.tree.nodes, 1) <= LONGEST)

    def arrays(self) -> Named:
        """All that its further course depends on but `rest`, by name."""
        facts = np.array([self.lower, self.limited, len(self.rest)], np.float64)
        known: Named = {"facts": facts, "fix": self.fix, "shown": np.array(self._shown, np.float64)}
        return known | {f"tree {name}": array for name, array in self.tree.arrays().items()}


def resumed(
    arrays: Named, nodes: Sequence[OpenNode], part: Part, rows: NDArray[np.int64], settings: Settings
) -> Attempt:
    """An attempt that goes on from what its `arrays` gave.

    Args:
        arrays: those.
        nodes: open ones, of which the last are its `rest`.
        part: the whole row.
        rows: its name.
        settings: of the tree around it.

    Raises:
        ValueError: for arrays of another attempt than one at this row.
    """
    fix, facts = arrays["fix"], arrays["facts"]
    if fix.shape != part.labels.shape or facts.shape != (3,) or not 0 < facts[2] <= len(nodes):
        raise ValueError("its attempt is at another row")
    rest = nodes[len(nodes) - int(facts[2]) :]
    again = Attempt(part, rows, OpenNode(fix, float(facts[0])), rest, bool(facts[1]), settings)
    again._shown = arrays["shown"].tolist()
    again.tree.restore({name[5:]: array for name, array in arrays.items() if name.startswith("tree ")})
    return again
