"""One block's branch and bound: a compiled search (`grow`) that Python runs slice by slice."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.node.oracle import EPS, formation
from solvers.bounds.node.restriction import elimination, part_of
from solvers.bounds.split import Split, keeps_one_split
from solvers.certificate import Proof
from solvers.exact.tree.grow import DONE, NO_ROOM, grow
from solvers.exact.tree.proof import testify
from solvers.exact.tree.storage import Storage
from solvers.exact.tree.store import Effort, Log, Search, Store, accept, push
from solvers.exact.tree.subtree import at_root
from solvers.exact.tree.symmetry import chains
from solvers.form.blocks import Block
from solvers.problem import Mask

RESPLIT = 0.4
"""Share of the gap that rounding in restricted blocks may cost; beyond it there are no new splits, without
which trees seldom end. What rounds counts twice: for the cutoff, and for the bound of what is cut off."""
MEMORY = 1 << 30
"""Bytes that a tree may take by default."""
PATIENCE = 1000
"""Nodes between two attempts to find room for splits where there was none."""


@dataclass(frozen=True)
class Settings:
    """How a block is searched.

    Attributes:
        probe: probes of an entry before its pseudo-costs are trusted. None: 1, or 0 in a narrow selection.
        depth: entries fixed since the last split that make a new one worth a try; none if negative. None: 3,
            or -1 in a narrow selection, whose nodes cost less than probes and splits (`keeps_one_split`).
        worth: branchings between bound and cutoff, at the mean gain, that do.
        steps: Newton steps of a new split.
        memory: bytes that open nodes, splits and the log of the proof may take together.
        share: whether to stop and be `hungry` where more memory would help, instead of making do: without
            room for more open nodes the search is depth-first, without room for splits it makes none.
        record: keep what a proof needs.
        symmetry: whether to leave out masks that are no better than others; not if recorded.
        slice: nodes of 64 entries between two looks at the clock; fewer of wider ones.
        attempt: whether a tree of splits in groups begins as one of diagonal splits.
    """

    probe: int | None = None
    depth: int | None = None
    worth: float = 1.0
    steps: int = 2
    memory: int = MEMORY
    share: bool = False
    record: bool = False
    symmetry: bool = True
    slice: int = 200
    attempt: bool = True


DEFAULT = Settings()


class BlockTree:
    """Branch and bound on one block, resumable between slices.

    `BlockTree(block, settings).plant(split, pruned, value, gap)` begins a search, and `restore` goes on with
    one that a checkpoint has kept.

    Args:
        block: what to solve.
        settings: how.

    Attributes:
        done: whether the block is proven.
        depth: of the settings, or of the variant.
        hungry: whether it waits for `feed`.
        full: whether it can't go on in its memory, depth-first or not.
        halt: `[1]`, True to end a slice within a moment, from any thread.
        seconds: spent in `work`.
        formation: what rounding in the block's restrictions may cost the bound.
    """

    def __init__(self, block: Block, settings: Settings = DEFAULT) -> None:
        n, record = block.n, settings.record
        self.block, self.settings, self.share = block, settings, settings.share
        self.done = self.hungry = self.full = False
        self.seconds = self.formation = 0.0
        self.halt: NDArray[np.bool_] = np.zeros(1, np.bool_)
        ordered = chains(block) if settings.symmetry and not record else np.zeros(0, np.int64)
        probe, depth = (0, -1) if keeps_one_split(block.refit, n) else (1, 3)
        probe = probe if settings.probe is None else settings.probe
        self.depth = depth if settings.depth is None else settings.depth
        effort = Effort(probe, -1, float(settings.worth), settings.steps)
        self.search = Search(part_of(block), ordered, self.halt, np.zeros((4, n)), np.zeros(n), effort)
        self.storage = Storage(n, len(block.H), block.B.shape[2], settings.memory, record)

    def plant(self, split: Split, pruned: Mask, value: float, gap: float) -> BlockTree:
        """Begin with the root; returns the tree itself.

        Args:
            split: of the block, and its relaxation.
            pruned: `[n]` incumbent, True where pruned.
            value: the incumbent's cost.
            gap: relative gap to prove.
        """
        block, state, room = self.block, self.state, RESPLIT * gap * abs(value)
        self.formation = formation(block, split.d)
        if len(block.H) == 1 and self.depth >= 0:
            slack = elimination(block, split.d[0], room)
            if slack <= room:
                self._set_depth(self.depth)
                self.formation += slack
        bound, rounding = at_root(block, split)
        state.gap, state.floor, state.margin = gap, math.inf, self.formation
        state.noise = max(64.0 * (block.n + 8) * EPS * block.scale, 2.0 * rounding + self.formation)
        accept(state, value)
        self.search.incumbent[:] = ~pruned
        if self.settings.record:
            self.storage.room_for_log()
            self.log.entry[0] = self.log.pruned[0] = self.log.kept[0] = -1
            self.log.shares[0] = split.z
            state.tree = state.vectors = 1
        self.storage.room_for_splits()
        self.store.d[0] = split.d
        state.splits = state.made = 1
        self.storage.room_for_nodes()
        state.free -= 1
        root = int(self.store.spare[state.free])
        self.store.shares[root] = split.z
        self.store.lower[root] = max(block.floor, bound)
        push(self.store, state, root)
        return self

    def work(self, nodes: int | None = None) -> bool:
        """Process up to so many nodes, by default a slice; whether the block is proven."""
        if nodes is None:
            nodes = max(1, int(self.settings.slice * min(1.0, (64 / self.block.n) ** 2)))
        start = time.perf_counter()
        while not self.done:
            before = self.nodes
            code = grow(self.search, self.store, self.log, self.state, nodes)
            nodes -= self.nodes - before
            if code == NO_ROOM and self._room():
                continue
            self.done = code == DONE
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
        self.state.reserve = self.state.sparing = 0

    @property
    def state(self) -> Any:
        """The search's counters; see `store.STATE`."""
        return self.storage.state

    @property
    def gap(self) -> float:
        """The relative gap that it is to prove."""
        return float(self.state.gap)

    @property
    def value(self) -> float:
        """The incumbent's cost."""
        return float(self.state["upper"])

    @property
    def bound(self) -> float:
        """Least bound of what is open and of what was cut off within the gap."""
        lowest = min(self.value, float(self.state["floor"]))
        if not self.done:
            lowest = min(lowest, self.storage.least_open)
        return max(self.block.floor, lowest - self.formation)

    @property
    def pruned(self) -> Mask:
        """`[n]` incumbent, True where pruned."""
        return np.asarray(self.search.incumbent < 0.5)

    @property
    def nodes(self) -> int:
        """Nodes processed."""
        return int(self.state["nodes"])

    @property
    def splits(self) -> int:
        """Splits made, the root's included."""
        return int(self.state.made)

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
        """Bytes that it takes."""
        return self.storage.bytes

    def proof(self) -> Proof:
        """What has been proven so far, if it was recorded."""
        return testify(self.block, self.store, self.log, int(self.state.tree))

    def last_proof(self) -> Proof:
        """The same, when the search does not go on: it gives away its store and log."""
        proof = self.proof()
        self.storage.clear()
        return proof

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that its further course depends on, by name."""
        facts = np.array([self.formation, self.seconds, self.search.effort.depth, self.done], np.float64)
        known = {"facts": facts, "costs": self.search.costs, "incumbent": self.search.incumbent}
        return known | self.storage.arrays()

    def restore(self, arrays: dict[str, NDArray[Any]]) -> BlockTree:
        """Go on from what `arrays` gave; returns the tree itself.

        Raises:
            ValueError: for arrays of another tree than one of this block.
        """
        self.formation, self.seconds, depth, done = arrays["facts"].tolist()
        self._set_depth(int(depth))
        self.done = bool(done)
        self.search.costs[:], self.search.incumbent[:] = arrays["costs"], arrays["incumbent"]
        self.storage.restore(arrays)
        return self

    def _set_depth(self, depth: int) -> None:
        self.search = self.search._replace(effort=self.search.effort._replace(depth=depth))

    def _room(self) -> bool:
        """Make room for what a node may store; False if that has to wait, or can't be."""
        n, state = self.block.n, self.state
        short = not self.storage.room_for_log() if self.settings.record else False
        if state.splits >= len(self.store.roots) and not self.storage.room_for_splits():
            state.sparing = 0 if self.share else state.nodes + PATIENCE
            short = short or self.share
        if state.free < n + 8 and not self.storage.room_for_nodes():
            state.reserve = 0 if self.share else n + 8
            short = short or self.share or bool(state.free < 2)
        self.hungry, self.full = short and self.share, short and not self.share
        return not short
