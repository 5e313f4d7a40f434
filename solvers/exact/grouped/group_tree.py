"""The tree of one lone joint row whose nodes have splits in groups of their own: best-first, node by node.

A node costs as much as hundreds of those of `solvers.exact.tree`, and mostly closes more of the gap than
thousands of them do: rows of 144 inputs take hundreds of nodes, where trees of diagonal splits are not done
after many thousands. But not on every row: those of one pool begin with such a tree (`attempt.py`). What is
left at last, when little, goes to one, too.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.node.oracle import EPS, formation
from solvers.bounds.node.restriction import elimination, part_of
from solvers.bounds.split import Split
from solvers.certificate import IMPOSSIBLE, Proof
from solvers.exact.grouped.attempt import Attempt, resumed
from solvers.exact.grouped.branching import choose
from solvers.exact.grouped.node import Relaxed, left_of, relax
from solvers.exact.grouped.open_node import Named, OpenNode, pack, settle, unpack
from solvers.exact.grouped.record import Record
from solvers.exact.tree.block_tree import RESPLIT, Settings
from solvers.exact.tree.fixing import follow
from solvers.exact.tree.subtree import at_root
from solvers.exact.tree.symmetry import chains
from solvers.form.blocks import Block
from solvers.heuristics.rows.search import state
from solvers.heuristics.rows.swaps import GAIN, SWAPS, descend
from solvers.heuristics.rows.tableau import RowData, read_only, refresh
from solvers.problem import Mask

SMALL = 56
"""Free entries up to which a node is left to a tree of diagonal splits, where no proof is recorded."""
AGAIN = 0.15
"""Share of a node's free entries that are fixed at once for it to be relaxed once more."""
OFTEN, EVERY = 10, 16
"""Nodes that have their rounded mask improved by swaps: the first ones, and then some."""
FACTS = (
    "value",
    "floor",
    "noise",
    "gap",
    "formation",
    "seconds",
    "nodes",
    "splits",
    "steps",
    "done",
    "_least",
)


def suits(block: Block, split: Split, value: float, gap: float) -> bool:
    """Whether a block is a lone joint row, conditioned for splits of what fixings leave."""
    if not block.refit or block.B.shape != (1, block.n, 1) or block.trivial:
        return False
    room = RESPLIT * gap * abs(value)
    return value > 1e-12 * block.constant and elimination(block, split.d[0], room) <= room


class GroupTree:
    """Branch and bound on one lone joint row, resumable between nodes.

    `plant(split, pruned, value, gap)` begins a search, and `restore` goes on with one that a checkpoint has
    kept; as `solvers.exact.tree.block_tree.BlockTree`.

    Args:
        block: what to solve; see `suits`.
        settings: how: `memory`, `share`, `record` and `symmetry` count.

    Attributes:
        done: whether the block is proven.
        hungry: whether it waits for `feed`, as its record has no room. Otherwise it never does: short of
            memory it takes the newest node first, which needs hardly more.
        full: whether its record can't go on in its memory.
        halt: `[1]`, True to end a node within a moment, from any thread.
        value: the incumbent's cost.
        nodes: processed.
        splits: made.
        steps: Newton steps taken.
        seconds: spent in `work`.
        memory: bytes that the open nodes and the record may take before the search is depth-first.
        formation: what rounding in the block's restrictions may cost the bound.
    """

    def __init__(self, block: Block, settings: Settings) -> None:
        self.block, self.settings, self.memory = block, settings, settings.memory
        self.halt: NDArray[np.bool_] = np.zeros(1, np.bool_)
        self.done = self.hungry = self.full = False
        self.nodes, self.splits, self.steps, self.seconds = 0, 0, 0, 0.0
        self.formation, self.value, self.floor = 0.0, math.inf, math.inf
        self.gap = self.noise = 0.0
        self._part = part_of(block)
        self._chains = chains(block) if settings.symmetry and not settings.record else np.zeros(0, np.int64)
        self._share, self._record = settings.share, Record(block) if settings.record else None
        self._incumbent = np.zeros(block.n, dtype=bool)
        self._open: dict[int, OpenNode] = {}
        self._heap: list[tuple[float, int]] = []
        self._count = self._bytes = 0
        self._least = -math.inf
        self._attempt: Attempt | None = None

    def plant(self, split: Split, pruned: Mask, value: float, gap: float) -> GroupTree:
        """Begin with the root; returns the tree itself.

        Args:
            split: of the block, and its relaxation.
            pruned: `[n]` incumbent, True where pruned.
            value: the incumbent's cost.
            gap: relative gap to prove.
        """
        block, room = self.block, RESPLIT * gap * abs(value)
        self.formation = formation(block, split.d) + elimination(block, split.d[0], room)
        bound, rounding = at_root(block, split)
        self.noise = max(64.0 * (block.n + 8) * EPS * block.scale, 2.0 * rounding + self.formation)
        self.gap, self.value, self._incumbent = gap, value, pruned.copy()
        if self._record is not None:
            self._record.plant(split)
        root = OpenNode(np.zeros(block.n, np.int8), max(block.floor, bound))
        whole = len(block.keep) > 1  # blocks of whole pools are far better than a diagonal
        if self.settings.attempt and self._record is None and not whole:
            attempt = Attempt(self._part, block.rows, root, [root], True, self.settings)
            self._attempt = attempt.plant(split, value, (value - self.cutoff) / value)
        else:
            self._push(root)
        self._least = max(block.floor, bound)
        return self

    def work(self, nodes: int | None = None) -> bool:
        """Process so many nodes, by default one, or slices of a tree within; whether the block is proven."""
        start = time.perf_counter()
        for _ in range(1 if nodes is None else nodes):
            if self.halt[0] or not self._room():
                break
            if self._attempt is not None:
                self._go_on(self._attempt)
            elif (node := self._take()) is not None:
                self._process(node)
            else:
                break
        least = min((self._open[key].lower for _, key in self._heap[:1] if key in self._open), default=None)
        if least is None:
            least = min((node.lower for node in self._open.values()), default=math.inf)
        if self._attempt is not None:
            least = min(least, self._attempt.bound)
        self._least = min(least, self.floor)
        self.seconds += time.perf_counter() - start
        return self.done

    def feed(self, memory: int) -> None:
        """Take so much memory from now on; if that is hardly more, ask for no more again."""
        self._share = memory > 1.25 * self.memory
        self.memory, self.hungry = max(memory, self.memory), False

    @property
    def cutoff(self) -> float:
        """A bound that proves the incumbent, to within the gap."""
        return self.value - max(self.gap * abs(self.value) - self.formation, self.noise)

    @property
    def bound(self) -> float:
        """Least bound of what was open, and of what was cut off within the gap, after the latest node."""
        return max(self.block.floor, min(self.value, self._least) - self.formation)

    @property
    def pruned(self) -> Mask:
        """`[n]` incumbent, True where pruned."""
        return self._incumbent

    @property
    def bytes(self) -> int:
        """Bytes that open nodes take, the record, and a tree within."""
        within = 0 if self._attempt is None else self._attempt.tree.bytes
        return self._bytes + within + (0 if self._record is None else self._record.bytes)

    def last_proof(self) -> Proof:
        """What has been proven so far, if it was recorded, where the search ends: the record goes."""
        record, self._record = self._record, None
        assert record is not None
        return record.proof()

    def arrays(self) -> Named:
        """All that its further course depends on, by name."""
        attempt = self._attempt
        nodes = [self._open[key] for key in sorted(self._open)]
        facts = np.array([float(getattr(self, name)) for name in FACTS])
        known = {"facts": facts, "incumbent": self._incumbent}
        known |= pack([*nodes, *([] if attempt is None else attempt.rest)], self.block.n)
        if attempt is not None:
            known |= {f"attempt {name}": array for name, array in attempt.arrays().items()}
        return known if self._record is None else known | self._record.arrays()

    def restore(self, arrays: Named) -> GroupTree:
        """Go on from what `arrays` gave; returns the tree itself.

        Raises:
            ValueError: for arrays of another tree than one of this block.
        """
        n = self.block.n
        if arrays["facts"].shape != (len(FACTS),) or arrays["incumbent"].shape != (n,):
            raise ValueError("its arrays have other shapes")
        for name, fact in zip(FACTS, arrays["facts"].tolist(), strict=True):
            setattr(self, name, type(getattr(self, name))(fact))
        self._incumbent = arrays["incumbent"].astype(bool)
        self._open, self._heap, self._bytes = {}, [], 0
        nodes = unpack(arrays, n)
        within = {name[8:]: array for name, array in arrays.items() if name.startswith("attempt ")}
        if within:
            self._attempt = resumed(within, nodes, self._part, self.block.rows, self.settings)
            nodes = nodes[: -len(self._attempt.rest)]
        for node in nodes:
            self._push(node)
        if self._record is not None:
            self._record = Record(self.block).restore(arrays)
        return self

    def _room(self) -> bool:
        """Whether its record, if there is one, may go on; if not, it is hungry, or full."""
        short = self._record is not None and self._record.bytes > self.memory
        self.hungry, self.full = short and self._share, short and not self._share
        return not short

    def _push(self, node: OpenNode) -> None:
        self._count += 1
        self._open[self._count] = node
        heapq.heappush(self._heap, (node.lower, self._count))
        self._bytes += node.bytes

    def _take(self) -> OpenNode | None:
        """The node of least bound, or the newest where memory is short; None, and done, if none is left."""
        while self._open:
            if self.bytes > self.memory:
                key = next(reversed(self._open))
            else:
                key = heapq.heappop(self._heap)[1]
                if key not in self._open:
                    continue
            node = self._open.pop(key)
            self._bytes -= node.bytes
            if node.lower < self.cutoff:
                return node
            self.floor = min(self.floor, node.lower)
        self._heap.clear()
        self.done = True
        return None

    def _process(self, node: OpenNode, beside: Attempt | None = None) -> None:
        """Relax a node, fix what that decides, and close it, branch, or leave it to a tree of weak nodes.

        Args:
            node: taken.
            beside: such a tree of the node that has begun; it goes on if it promises more.
        """
        fix, lower, seed, at, record = node.fix.copy(), node.lower, node.seed, node.at, self._record
        small = SMALL if record is None else 0
        self.nodes += 1
        while True:
            if len(self._chains) and not follow(fix, self._chains):
                return
            settled = settle(self.block, fix)
            if settled is None:
                return
            if settled.all():
                value = self._accept(settled < 0)
                if record is not None and lower < value:
                    record.mask(at, settled < 0)
                self._close(max(lower, value))
                return
            if record is not None:
                at = record.fix(at, fix, settled, IMPOSSIBLE)
            fix = settled
            free, block = left_of(self._part, self.block.rows, fix)
            found = relax(block, free, fix, seed, self.value, self.cutoff, lambda: bool(self.halt[0]))
            if found is None:
                break
            self.splits, self.steps = self.splits + 1, self.steps + found.steps
            seed = found.seed
            vector = 0 if record is None else record.add(fix, found.split)
            if record is not None and found.bound > lower:
                record.bound(at, vector)
            if beside is not None and (self.halt[0] or beside.better(found.bound, self.value)):
                beside.lower = max(lower, found.bound)
                beside.limited, self._attempt = bool(self.halt[0]), beside
                return
            beside = None
            lower = max(lower, found.bound)
            self._round(fix, found)
            if lower >= self.cutoff:
                self._close(lower)
                return
            if self.halt[0]:
                self._push(OpenNode(fix, lower, seed, at))
                return
            fixed = self._decide(fix, found)
            if record is not None:
                at = record.fix(at, fix, fixed, vector)
            count = int((fixed != fix).sum())
            fix = fixed
            if 2 < int((fix == 0).sum()) <= small or count < max(2.0, AGAIN * len(free)):
                break
        node = OpenNode(fix, lower, seed, at)
        children = self._branch(node, found)
        if 2 < int((fix == 0).sum()) <= small:
            self._leave(node, children)
            return
        for child in children:
            self._push(child)

    def _leave(self, node: OpenNode, rest: Sequence[OpenNode]) -> None:
        """Leave a node to a tree of diagonal splits; `rest` takes its place should memory run short."""
        settled = settle(self.block, node.fix)
        if settled is None:
            return
        if settled.all():
            self._close(max(node.lower, self._accept(settled < 0)))
            return
        node, gap = replace(node, fix=settled), (self.value - self.cutoff) / self.value
        attempt = Attempt(self._part, self.block.rows, node, rest, False, self.settings)
        self._attempt = attempt.plant(None, self.value, gap)

    def _go_on(self, attempt: Attempt) -> None:
        """Some more nodes of a tree of diagonal splits, and what follows from it."""
        tree, before = attempt.tree, attempt.tree.nodes
        attempt.work()
        self.nodes += tree.nodes - before
        if tree.value < self.value:
            mask = attempt.fix < 0
            mask[attempt.free] = tree.pruned
            self._accept(mask)
        if not (tree.done or attempt.hopeless):
            return
        self._attempt = None
        if tree.done:
            self._close(attempt.bound)
        else:
            rest = [replace(node, lower=max(node.lower, attempt.bound)) for node in attempt.rest]
            if tree.full:
                for node in rest:
                    self._push(node)
            else:
                self._process(rest[0], attempt)

    def _decide(self, fix: NDArray[np.int8], found: Relaxed) -> NDArray[np.int8]:
        """With the entries fixed whose other choice lifts the bound past the cutoff (reduced-cost fixing)."""
        out, room = fix.copy(), self.cutoff - found.bound
        keeps, prunes = found.kept >= room, found.pruned >= room
        out[found.free[keeps]] = -1
        out[found.free[prunes & ~keeps]] = 1
        if (keeps | prunes).any():
            other = np.where(keeps, found.kept, found.pruned)[keeps | prunes]
            self.floor = min(self.floor, found.bound + float(other.min()))
        return out

    def _round(self, fix: NDArray[np.int8], found: Relaxed) -> None:
        """Try the mask that a relaxation rounds to, and now and then what swaps make of it."""
        z = np.where(fix > 0, 2.0, -1.0)
        z[found.free] = found.z
        pruned = self.block.smallest(z)
        self._accept(pruned)
        if self.splits <= OFTEN or self.splits % EVERY == 0:
            H, w = read_only(self.block.H[0]), self.block.W[0, :, 0].copy()
            row = state(RowData(True, H, w, np.zeros(len(w)), self.block.labels), pruned)
            while not self.halt[0] and descend(row, GAIN, SWAPS) == SWAPS:
                refresh(row)
            self._accept(pruned)

    def _accept(self, pruned: Mask) -> float:
        """Take a mask as the incumbent if it is better; what it costs."""
        value = self.block.value(pruned)
        if value < self.value:
            self.value, self._incumbent = value, pruned.copy()
        return value

    def _close(self, bound: float) -> None:
        self.floor = min(self.floor, bound)

    def _branch(self, node: OpenNode, found: Relaxed | None) -> list[OpenNode]:
        """Both children of a node, or itself if nothing is left to branch on."""
        fix, settled = node.fix, settle(self.block, node.fix)
        free = np.flatnonzero(fix == 0)
        if settled is None or not len(free):
            return [node]
        entry = int(free[0])
        if found is not None:
            left = fix[found.free] == 0
            entry = int(free[choose(found.gains[:, left], found.z[left], self.cutoff - node.lower)])
        leaves = (0, 0) if self._record is None else self._record.branch(node.at, entry)
        children = []
        for side, leaf in zip((-1, 1), leaves, strict=True):
            child = fix.copy()
            child[entry] = side
            children.append(replace(node, fix=child, at=leaf))
        return children
