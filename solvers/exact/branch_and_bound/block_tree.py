"""One block's search: its arrays, and slices of work on them."""

from __future__ import annotations

import math

import numpy as np

from solvers.blocks import Block
from solvers.bounds.split import Split
from solvers.exact.branch_and_bound import tree
from solvers.hessian import Array
from solvers.problem import Mask

SLICE = 200
"""Nodes between two looks at the clock."""


class BlockTree:
    """Branch and bound on one block, resumable between slices.

    Args:
        block: what to solve.
        split: its split and relaxation.
        pruned: `[n]` incumbent, True where pruned.
        value: the incumbent's cost.
        gap: relative gap to prove.
        offset: constant between block values and what the gap is relative to.
        probe: probes of an entry before its pseudo-costs are trusted.
        max_open: open nodes at most.
    """

    def __init__(
        self,
        block: Block,
        split: Split,
        pruned: Mask,
        value: float,
        *,
        gap: float,
        offset: float = 0.0,
        probe: int = 1,
        max_open: int = 4_000_000,
    ) -> None:
        n = block.n
        self.block = block
        self.probe = probe
        self.max_open = max_open
        self.R = np.stack([H - np.diag(d) for H, d in zip(block.H, split.d, strict=True)])
        self.d = np.ascontiguousarray(split.d)
        self.B = np.ascontiguousarray(block.B)
        self.incumbent = 1.0 - pruned.astype(np.float64)
        self.integers = np.zeros(6, np.int64)
        self.real = np.array([value, math.inf, 0.0, gap, offset])
        tree.accept(self.real, value)
        self.costs = np.zeros((4, n))
        self._allocate(1024)
        root = self._take()
        self.fixes[root] = 0
        self.shares[root] = split.z
        self.lower[root] = -math.inf
        self.sides[root] = 0
        tree.push(self.heap, self.integers, self.lower, root)
        self.integers[tree.CURRENT] = -1
        self.done = False
        self.full = False

    def work(self, nodes: int = SLICE) -> bool:
        """Process up to so many nodes; whether the block is proven."""
        while not self.done:
            before = int(self.integers[tree.NODES])
            code = tree.grow(
                self.block.refit, self.R, self.d, self.B, self.block.constant, self.block.labels, self.block.keep,
                self.integers, self.real, self.fixes, self.shares, self.lower, self.sides, self.parents, self.heap,
                self.spare, self.costs, self.incumbent, nodes, self.probe,
            )  # fmt: skip
            nodes -= int(self.integers[tree.NODES]) - before
            if code == 2:
                if len(self.lower) >= self.max_open:
                    self.full = True
                    return False
                self._allocate(min(2 * len(self.lower), self.max_open))
                continue
            self.done = code == 0
            break
        return self.done

    @property
    def value(self) -> float:
        """The incumbent's cost."""
        return float(self.real[tree.UPPER])

    @property
    def bound(self) -> float:
        """Least bound of what is open and of what was cut off within the gap."""
        lowest = min(self.value, float(self.real[tree.FLOOR]))
        if self.integers[tree.HEAP]:
            lowest = min(lowest, float(self.lower[self.heap[0]]))
        if self.integers[tree.CURRENT] >= 0:
            lowest = min(lowest, float(self.lower[self.integers[tree.CURRENT]]))
        return lowest

    @property
    def pruned(self) -> Mask:
        """`[n]` incumbent, True where pruned."""
        return np.asarray(self.incumbent < 0.5)

    @property
    def nodes(self) -> int:
        """Nodes processed."""
        return int(self.integers[tree.NODES])

    def _allocate(self, size: int) -> None:
        n, old = self.block.n, len(getattr(self, "lower", ()))
        grown: dict[str, Array] = {
            "fixes": np.zeros((size, n), np.int8),
            "shares": np.empty((size, n)),
            "lower": np.empty(size),
            "sides": np.zeros(size, np.int64),
            "parents": np.ones(size),
            "heap": np.empty(size, np.int64),
            "spare": np.empty(size, np.int64),
        }
        for name, array in grown.items():
            if old:
                array[:old] = getattr(self, name)
            setattr(self, name, array)
        free = int(self.integers[tree.FREE])
        self.spare[free : free + size - old] = np.arange(size - 1, old - 1, -1)
        self.integers[tree.FREE] = free + size - old

    def _take(self) -> int:
        self.integers[tree.FREE] -= 1
        return int(self.spare[self.integers[tree.FREE]])
