"""One narrow selection's branch and bound: a compiled depth-first search that Python runs slice by slice."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.node.oracle import EPS, formation
from solvers.bounds.split import Split
from solvers.exact.selections.relaxation import Convex
from solvers.exact.selections.search import FLOOR, GAP, NODES, OPEN, UPPER, Path, begin, search
from solvers.exact.tree.block_tree import Settings
from solvers.exact.tree.symmetry import chains
from solvers.form.blocks import Block
from solvers.problem import Mask

WIDEST = 64
"""Entries up to which depth-first is the better way: of wider ones it has no bound yet when a limit comes."""
SLICE = 5
"""Nodes of a slice, in times of those of `Settings.slice`, which are dearer."""


def suits_depth_first(refit: bool, n: int) -> bool:
    """Whether a tree of so many entries is depth-first where no proof of it is asked for."""
    return not refit and n <= WIDEST


class SelectionTree:
    """Depth-first branch and bound on one selection, resumable between slices; a relative of `BlockTree`.

    Its first split is its only one, and its memory does not grow. It makes no proof for certificates.

    Args:
        block: a selection of up to `WIDEST` entries.
        settings: how to search, of which `slice` and `symmetry` count here.

    Attributes:
        done: whether the block is proven.
        halt: `[1]`, True to end a slice within a moment, from any thread.
        seconds: spent in `work`.
    """

    hungry = full = False
    splits = 1

    def __init__(self, block: Block, settings: Settings) -> None:
        self.block, self.settings = block, settings
        self.done, self.seconds = False, 0.0
        self.halt: NDArray[np.bool_] = np.zeros(1, np.bool_)
        self._chains = chains(block) if settings.symmetry else np.zeros(0, np.int64)

    def plant(self, split: Split, pruned: Mask, gap: float) -> SelectionTree:
        """Begin with the root; returns the tree itself.

        Args:
            split: of the block, and its relaxation.
            pruned: `[n]` incumbent, True where pruned.
            gap: relative gap to prove.
        """
        block = self.block
        self._look(split.d)
        self.path = _empty(block.n)
        self.path.shares[0], self.path.lower[0] = 1.0 - split.z, block.floor
        self.path.best[:] = pruned
        begin(self.convex, self.path, gap, self.formation, 64.0 * (block.n + 8) * EPS * block.scale)
        return self

    def _look(self, d: NDArray[np.float64]) -> None:
        """Look at the block with a split `[1, n]`."""
        block = self.block
        A, c = np.ascontiguousarray(block.H[0]), np.ascontiguousarray(block.B[0, :, 0])
        R = A - np.diag(d[0])
        size = np.sqrt(np.abs(np.diagonal(R)) + np.abs(d[0]))
        self.d = d
        self.convex = Convex(A, c, R, 0.5 * d[0] - c, size, block.labels, block.prune)
        self.formation = formation(block, d)

    def work(self, nodes: int | None = None) -> bool:
        """Process up to so many nodes, by default a slice; whether the block is proven."""
        start = time.perf_counter()
        limit = SLICE * self.settings.slice if nodes is None else nodes
        self.done = self.done or bool(search(self.convex, self._chains, self.path, self.halt, limit))
        self.seconds += time.perf_counter() - start
        return self.done

    def feed(self, memory: int) -> None:
        """See `BlockTree.feed`; it is never hungry."""

    @property
    def value(self) -> float:
        """The incumbent's cost."""
        return float(self.path.levels[UPPER])

    @property
    def bound(self) -> float:
        """Least bound of what is open and of what was cut off within the gap."""
        lowest = min(self.value, float(self.path.levels[FLOOR]))
        lowest = min([lowest, *self.path.lower[: self.path.counts[OPEN]].tolist()])
        return float(max(self.block.floor, lowest - self.formation))

    @property
    def gap(self) -> float:
        """The relative gap that it is to prove."""
        return float(self.path.levels[GAP])

    @property
    def pruned(self) -> Mask:
        """`[n]` incumbent, True where pruned."""
        return np.asarray(self.path.best > 0.5)

    @property
    def nodes(self) -> int:
        """Nodes processed."""
        return int(self.path.counts[NODES])

    @property
    def memory(self) -> int:
        """Bytes that it may take."""
        return self.settings.memory

    @property
    def bytes(self) -> int:
        """Bytes that it takes."""
        return sum(array.nbytes for array in (*self.convex[:5], *self.path))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that its further course depends on, by name."""
        facts = np.array([self.seconds, self.done], np.float64)
        return {"path facts": facts, "split": self.d, **self.path._asdict()}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> SelectionTree:
        """Go on from what `arrays` gave; returns the tree itself.

        Raises:
            ValueError: for arrays of another tree than one of this block.
        """
        empty = _empty(self.block.n)
        for name, array in empty._asdict().items():
            if arrays[name].shape != array.shape or arrays[name].dtype != array.dtype:
                raise ValueError("its arrays have other shapes")
        path = Path(**{name: arrays[name].copy() for name in Path._fields})
        deepest, named = len(path.lower) - 2, np.abs(path.sides)
        if not 0 <= path.counts[OPEN] <= deepest or path.counts[NODES] < 0 or named.max() > self.block.n:
            raise ValueError("its counts are out of range")
        self.seconds, done = arrays["path facts"].tolist()
        self.path, self.done = path, bool(done)
        self._look(arrays["split"].copy())
        return self


def _empty(n: int) -> Path:
    places = n + 2
    return Path(
        np.zeros((places, n), np.int8), np.zeros((places, n)), np.zeros(places), np.zeros(places, np.int64),
        np.zeros(places), np.zeros((4, n)), np.zeros(n), np.zeros(2, np.int64), np.zeros(6),
    )  # fmt: skip
