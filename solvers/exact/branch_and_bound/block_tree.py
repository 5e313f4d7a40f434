"""One block's search: its arrays, and slices of work on them."""

from __future__ import annotations

import math
import time

import numpy as np

from solvers.blocks import Block
from solvers.bounds.oracle import EPS, evaluate, formation
from solvers.bounds.split import Split
from solvers.exact.branch_and_bound import state, tree
from solvers.hessian import Array
from solvers.problem import Mask

SLICE = 200
"""Nodes of 64 entries between two looks at the clock; fewer of wider ones."""


class BlockTree:
    """Branch and bound on one block, resumable between slices.

    Args:
        block: what to solve.
        split: its split and relaxation.
        pruned: `[n]` incumbent, True where pruned.
        value: the incumbent's cost.
        gap: relative gap to prove.
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
        probe: int = 1,
        max_open: int = 4_000_000,
    ) -> None:
        n = block.n
        self.block = block
        self.probe = probe
        self.max_open = max_open
        self.seconds = 0.0
        self.R = np.stack([H - np.diag(d) for H, d in zip(block.H, split.d, strict=True)])
        self.d = np.ascontiguousarray(split.d)
        self.B = np.ascontiguousarray(block.B)
        self.incumbent = 1.0 - pruned.astype(np.float64)
        self.integers = np.zeros(6, np.int64)
        self.formation = formation(block, self.d)
        noise = max(64.0 * (n + 8) * EPS * block.scale, 2.0 * self._rounding(split.z) + self.formation)
        self.real = np.array([value, math.inf, 0.0, gap, noise])
        state.accept(self.real, value)
        self.costs = np.zeros((4, n))
        self.fixes = np.empty((0, n), np.int8)
        self.shares = np.empty((0, n))
        self.lower = np.empty(0)
        self.sides = np.empty(0, np.int64)
        self.parents = np.empty(0)
        self.heap = np.empty(0, np.int64)
        self.spare = np.empty(0, np.int64)
        self._allocate(1024)
        root = self._take()
        self.fixes[root] = 0
        self.shares[root] = split.z
        self.lower[root] = block.floor
        self.sides[root] = 0
        state.push(self.heap, self.integers, self.lower, root)
        self.integers[state.CURRENT] = -1
        self.done = False
        self.full = False

    def work(self, nodes: int | None = None) -> bool:
        """Process up to so many nodes, by default a slice; whether the block is proven."""
        if nodes is None:
            nodes = max(1, int(SLICE * min(1.0, (64 / self.block.n) ** 2)))
        start = time.perf_counter()
        while not self.done:
            before = int(self.integers[state.NODES])
            code = tree.grow(
                self.block.refit, self.R, self.d, self.B, self.block.constant, self.block.labels,
                self.block.keep, self.integers, self.real, self.fixes, self.shares, self.lower,
                self.sides, self.parents, self.heap, self.spare, self.costs, self.incumbent, nodes,
                self.probe,
            )  # fmt: skip
            nodes -= int(self.integers[state.NODES]) - before
            if code == 2:
                if len(self.lower) >= self.max_open:
                    self.full = True
                    break
                self._allocate(min(2 * len(self.lower), self.max_open))
                continue
            self.done = code == 0
            break
        self.seconds += time.perf_counter() - start
        return self.done

    @property
    def value(self) -> float:
        """The incumbent's cost."""
        return float(self.real[state.UPPER])

    @property
    def bound(self) -> float:
        """Least bound of what is open and of what was cut off within the gap."""
        lowest = min(self.value, float(self.real[state.FLOOR]))
        if self.integers[state.HEAP]:
            lowest = min(lowest, float(self.lower[self.heap[0]]))
        if self.integers[state.CURRENT] >= 0:
            lowest = min(lowest, float(self.lower[self.integers[state.CURRENT]]))
        return max(self.block.floor, lowest - self.formation)

    @property
    def pruned(self) -> Mask:
        """`[n]` incumbent, True where pruned."""
        return np.asarray(self.incumbent < 0.5)

    @property
    def nodes(self) -> int:
        """Nodes processed."""
        return int(self.integers[state.NODES])

    def _rounding(self, z: Array) -> float:
        R, n = self.R, self.block.n
        L, q, s = np.empty_like(R), np.empty_like(self.B), np.empty(n)
        return float(evaluate(self.block.refit, R, self.d, self.B, self.block.constant, z, L, q, s)[2])

    def _allocate(self, size: int) -> None:
        old = len(self.lower)
        for name in ("fixes", "shares", "lower", "sides", "parents", "heap", "spare"):
            array = getattr(self, name)
            grown = np.zeros((size, *array.shape[1:]), array.dtype)
            grown[:old] = array
            setattr(self, name, grown)
        free = int(self.integers[state.FREE])
        self.spare[free : free + size - old] = np.arange(size - 1, old - 1, -1)
        self.integers[state.FREE] = free + size - old

    def _take(self) -> int:
        self.integers[state.FREE] -= 1
        return int(self.spare[self.integers[state.FREE]])
