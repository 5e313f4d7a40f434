"""One block's search: its arrays, and slices of work on them."""

from __future__ import annotations

import math
import time
from typing import Any, TypeVar

import numpy as np

from solvers.blocks import Block
from solvers.bounds.oracle import EPS, evaluate, formation, model_of
from solvers.bounds.resplit import elimination
from solvers.bounds.split import Split
from solvers.certificate import Proof
from solvers.exact.branch_and_bound import state, tree
from solvers.exact.branch_and_bound.log import Log
from solvers.exact.branch_and_bound.testimony import testify
from solvers.problem import Mask

SLICE = 200
"""Nodes of 64 entries between two looks at the clock; fewer of wider ones."""
RESPLIT = 0.1
"""Share of the gap that rounding in restricted blocks may cost; beyond it there are no new splits."""


class BlockTree:
    """Branch and bound on one block, resumable between slices.

    Args:
        block: what to solve.
        split: its split and relaxation.
        pruned: `[n]` incumbent, True where pruned.
        value: the incumbent's cost.
        gap: relative gap to prove.
        probe: probes of an entry before its pseudo-costs are trusted.
        depth: entries fixed since the last split that make a new one worth a try; none if negative.
        worth: branchings between bound and cutoff, at the mean gain, that do.
        effort: Newton steps of a new split.
        max_open: open nodes at most.
        record: keep what `proof` needs.
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
        depth: int = 2,
        worth: float = 2.0,
        effort: int = 3,
        max_open: int = 4_000_000,
        record: bool = False,
    ) -> None:
        n, groups = block.n, len(block.H)
        self.block = block
        self.probe = probe
        self.depth = depth if groups == 1 else -1
        self.worth = worth
        self.effort = effort
        self.max_open = max_open
        self.seconds = 0.0
        self.whole = tree.Whole(
            block.refit, np.ascontiguousarray(block.H), np.ascontiguousarray(block.B), float(block.constant),
            block.labels, block.keep,
        )  # fmt: skip
        self.incumbent = 1.0 - pruned.astype(np.float64)
        self.integers = np.zeros(10, np.int64)
        self.formation = formation(block, split.d)
        if self.depth >= 0:
            slack = elimination(block, split.d[0], RESPLIT * gap * abs(value))
            if slack > RESPLIT * gap * abs(value):
                self.depth = -1
            else:
                self.formation += slack
        noise = max(64.0 * (n + 8) * EPS * block.scale, 2.0 * self._rounding(split) + self.formation)
        self.real = np.array([value, math.inf, 0.0, gap, noise, 0.0])
        state.accept(self.real, value)
        self.costs = np.zeros((4, n))
        self.store = tree.Store(
            np.empty((0, n), np.int8), np.empty((0, n)), np.empty(0), np.empty(0, np.int64), np.empty(0),
            np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64),
            np.zeros((64, groups, n)), np.zeros((64, n), np.int8),
        )  # fmt: skip
        i32, i64 = np.int32, np.int64
        self.log = Log(
            np.empty(0, i32), np.empty(0, i32), np.empty(0, i32), np.empty(0, i32), np.empty((0, n)),
            np.empty(0, i64), np.empty(0, i64),
        )  # fmt: skip
        self.record = record
        if record:
            self._lengthen()
            self.log.entry[0] = self.log.pruned[0] = self.log.kept[0] = -1
            self.log.shares[0] = split.z
            self.integers[state.TREE] = self.integers[state.VECTORS] = 1
        self._allocate(1024)
        self.store.d[0] = split.d
        self.integers[state.SPLITS] = 1
        self.integers[state.FREE] -= 1
        root = int(self.store.spare[self.integers[state.FREE]])
        self.store.shares[root] = split.z
        self.store.lower[root] = block.floor
        state.push(self.store.heap, self.integers, self.store.lower, root)
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
                self.whole, self.store, self.log, self.integers, self.real, self.costs, self.incumbent, nodes,
                self.probe, self.depth, self.worth, self.effort,
            )  # fmt: skip
            nodes -= int(self.integers[state.NODES]) - before
            if code == 2:
                if self.integers[state.SPLITS] >= len(self.store.roots):
                    self.store = _stretched(self.store, ("d", "roots"), 2 * len(self.store.roots))
                    continue
                if self.integers[state.FREE] >= 2:
                    self._lengthen()
                    continue
                if len(self.store.lower) >= self.max_open:
                    self.full = True
                    break
                self._allocate(min(2 * len(self.store.lower), self.max_open))
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
            lowest = min(lowest, float(self.store.lower[self.store.heap[0]]))
        if self.integers[state.CURRENT] >= 0:
            lowest = min(lowest, float(self.store.lower[self.integers[state.CURRENT]]))
        return max(self.block.floor, lowest - self.formation)

    @property
    def pruned(self) -> Mask:
        """`[n]` incumbent, True where pruned."""
        return np.asarray(self.incumbent < 0.5)

    @property
    def nodes(self) -> int:
        """Nodes processed."""
        return int(self.integers[state.NODES])

    @property
    def splits(self) -> int:
        """Splits made, the root's included."""
        return int(self.integers[state.SPLITS])

    def proof(self) -> Proof:
        """What has been proven so far, if it was recorded."""
        return testify(self.block, self.store, self.log, int(self.integers[state.TREE]))

    def _rounding(self, split: Split) -> float:
        model = model_of(self.block, split.d)
        L, q, s = np.empty_like(model.R), np.empty_like(model.B), np.empty(self.block.n)
        return float(evaluate(model, split.z, L, q, s)[2])

    def _allocate(self, size: int) -> None:
        old = len(self.store.lower)
        names = ("fixes", "shares", "lower", "sides", "parents", "owner", "heap", "spare")
        self.store = _stretched(self.store, names, size)
        if self.record:
            self.log = _stretched(self.log, ("place",), size)
        free = int(self.integers[state.FREE])
        self.store.spare[free : free + size - old] = np.arange(size - 1, old - 1, -1)
        self.integers[state.FREE] = free + size - old

    def _lengthen(self) -> None:
        size = 2 * len(self.log.entry) + 16 * self.block.n
        self.log = _stretched(self.log, ("entry", "pruned", "kept", "vector"), size)
        self.log = _stretched(self.log, ("shares", "split"), 2 * len(self.log.shares) + 256)


Arrays = TypeVar("Arrays", tree.Store, Log)


def _stretched(arrays: Arrays, names: tuple[str, ...], size: int) -> Arrays:
    longer: dict[str, Any] = {}
    for name in names:
        array: Any = getattr(arrays, name)
        longer[name] = np.zeros((size, *array.shape[1:]), array.dtype)
        longer[name][: len(array)] = array
    return arrays._replace(**longer)
