"""One block's search: its arrays, and slices of work on them."""

from __future__ import annotations

import math
import time

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.node.oracle import EPS, formation
from solvers.bounds.node.restriction import elimination, part_of
from solvers.bounds.split import Split
from solvers.certificate import Proof
from solvers.exact.tree import state
from solvers.exact.tree.arrays import Store, Whole
from solvers.exact.tree.grow import grow
from solvers.exact.tree.log import Log
from solvers.exact.tree.roots import at_root
from solvers.exact.tree.storage import Storage, least_open
from solvers.exact.tree.symmetry import chains
from solvers.exact.tree.testimony import testify
from solvers.form.blocks import Block
from solvers.problem import Mask

SLICE = 200
"""Nodes of 64 entries between two looks at the clock; fewer of wider ones."""
RESPLIT = 0.1
"""Share of the gap that rounding in restricted blocks may cost; beyond it there are no new splits."""
MEMORY = 1 << 30
"""Bytes that a tree may take by default."""
PATIENCE = 1000
"""Nodes between two attempts to find room for splits where there was none."""


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
        memory: bytes that open nodes, splits and the log of the proof may take together.
        share: whether to stop and be `hungry` where more memory would help, instead of making do: without
            room for more open nodes the search is depth-first, without room for splits it makes none.
        record: keep what `proof` needs.
        symmetry: whether to leave out masks that are no better than others; not if recorded.

    Attributes:
        done: whether the block is proven.
        hungry: whether it waits for `feed`.
        full: whether it can't go on in its memory, depth-first or not.
        halt: `[1]`, True to end a slice within a moment, from any thread.
        seconds: spent in `work`.
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
        memory: int = MEMORY,
        share: bool = False,
        record: bool = False,
        symmetry: bool = True,
    ) -> None:
        self._settings(block, probe, worth, effort, memory, share, record, symmetry)
        self.depth = depth if len(block.H) == 1 else -1
        self.formation = formation(block, split.d)
        if self.depth >= 0:
            slack = elimination(block, split.d[0], RESPLIT * gap * abs(value))
            if slack > RESPLIT * gap * abs(value):
                self.depth = -1
            else:
                self.formation += slack
        bound, rounding = at_root(block, split)
        noise = max(64.0 * (block.n + 8) * EPS * block.scale, 2.0 * rounding + self.formation)
        self.real[:] = value, math.inf, 0.0, gap, noise, 0.0, self.formation
        state.accept(self.real, value)
        self.incumbent[:] = ~pruned
        if record:
            self.storage.room_for_log()
            self.log.entry[0] = self.log.pruned[0] = self.log.kept[0] = -1
            self.log.shares[0] = split.z
            self.integers[state.TREE] = self.integers[state.VECTORS] = 1
        self.storage.room_for_splits()
        self.store.d[0] = split.d
        self.integers[state.SPLITS] = self.integers[state.MADE] = 1
        self.storage.room_for_nodes()
        self.integers[state.FREE] -= 1
        root = int(self.store.spare[self.integers[state.FREE]])
        self.store.shares[root] = split.z
        self.store.lower[root] = max(block.floor, bound)
        state.push(self.store.heap, self.integers, self.store.lower, root)

    @classmethod
    def blank(
        cls,
        block: Block,
        *,
        probe: int = 1,
        worth: float = 2.0,
        effort: int = 3,
        memory: int = MEMORY,
        share: bool = False,
        record: bool = False,
        symmetry: bool = True,
    ) -> BlockTree:
        """A tree of nothing, for `solvers.exact.tree.checkpoint` to fill; see the class."""
        tree = cls.__new__(cls)
        tree._settings(block, probe, worth, effort, memory, share, record, symmetry)
        return tree

    def _settings(
        self,
        block: Block,
        probe: int,
        worth: float,
        effort: int,
        memory: int,
        share: bool,
        record: bool,
        symmetry: bool,
    ) -> None:
        n, groups = block.n, len(block.H)
        self.block = block
        self.probe, self.worth, self.effort = probe, worth, effort
        self.share, self.record = share, record
        self.done = self.hungry = self.full = False
        self.seconds = self.formation = 0.0
        self.depth = -1
        self.halt: NDArray[np.bool_] = np.zeros(1, np.bool_)
        ordered = chains(block) if symmetry and not record else np.zeros(0, np.int64)
        self.whole = Whole(part_of(block), ordered, self.halt)
        self.storage = Storage(n, groups, block.B.shape[2], memory, record)
        self.integers, self.real = self.storage.integers, np.zeros(7)
        self.costs, self.incumbent = np.zeros((4, n)), np.zeros(n)

    def work(self, nodes: int | None = None) -> bool:
        """Process up to so many nodes, by default a slice; whether the block is proven."""
        if nodes is None:
            nodes = max(1, int(SLICE * min(1.0, (64 / self.block.n) ** 2)))
        start = time.perf_counter()
        while not self.done:
            before = int(self.integers[state.NODES])
            code = grow(
                self.whole, self.store, self.log, self.integers, self.real, self.costs, self.incumbent, nodes,
                self.probe, self.depth, self.worth, self.effort,
            )  # fmt: skip
            nodes -= int(self.integers[state.NODES]) - before
            if code == 2 and self._room():
                continue
            self.done = code == 0
            break
        if self.done:
            self.storage.release()
        self.seconds += time.perf_counter() - start
        return self.done

    def feed(self, memory: int) -> None:
        """Let a hungry tree go on with so much memory; it won't ask again if that is hardly more."""
        self.share = memory > 1.25 * self.memory
        self.storage.memory = max(memory, self.memory)
        self.hungry = False
        self.integers[[state.RESERVE, state.SPARING]] = 0

    @property
    def gap(self) -> float:
        """The relative gap that it is to prove."""
        return float(self.real[state.GAP])

    @property
    def value(self) -> float:
        """The incumbent's cost."""
        return float(self.real[state.UPPER])

    @property
    def bound(self) -> float:
        """Least bound of what is open and of what was cut off within the gap."""
        lowest = min(self.value, float(self.real[state.FLOOR]))
        if not self.done:
            lowest = min(lowest, least_open(self.store, self.integers))
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
        return int(self.integers[state.MADE])

    @property
    def store(self) -> Store:
        """Open nodes and splits."""
        return self.storage.store

    @property
    def log(self) -> Log:
        """The proof as far as it goes."""
        return self.storage.log

    @property
    def memory(self) -> int:
        """Bytes that it may take."""
        return self.storage.memory

    @property
    def bytes(self) -> int:
        """Bytes that open nodes, splits and the log take."""
        return self.storage.bytes

    def proof(self) -> Proof:
        """What has been proven so far, if it was recorded."""
        return testify(self.block, self.store, self.log, int(self.integers[state.TREE]))

    def last_proof(self) -> Proof:
        """The same, when the search does not go on: it gives away its store and log."""
        proof = self.proof()
        self.storage.clear()
        return proof

    def _room(self) -> bool:
        """Make room for what a node may store; False if that has to wait, or can't be."""
        n, slots = self.block.n, self.integers
        short = not self.storage.room_for_log() if self.record else False
        if slots[state.SPLITS] >= len(self.store.roots) and not self.storage.room_for_splits():
            slots[state.SPARING] = 0 if self.share else slots[state.NODES] + PATIENCE
            short = short or self.share
        if slots[state.FREE] < n + 8 and not self.storage.room_for_nodes():
            slots[state.RESERVE] = 0 if self.share else n + 8
            short = short or self.share or bool(slots[state.FREE] < 2)
        self.hungry, self.full = short and self.share, short and not self.share
        return not short
