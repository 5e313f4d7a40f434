"""The search of one row's cost curve: masks, values and bounds at every pruned count, which help each other.

Any split and any Lagrangian point bound every count, and the best masks of neighbouring counts are a move
apart, so that what is found at one count starts the search at the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.node.oracle import evaluate, formation, model_of
from solvers.bounds.node.resplit import improve
from solvers.bounds.node.restriction import part_of
from solvers.bounds.secure import secure
from solvers.bounds.split import WIDE, Split, split_blocks
from solvers.certificate import Proof, root_proof
from solvers.exact.tree.block_tree import DEFAULT, BlockTree, Settings
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.heuristics.rows.swaps import neighbour
from solvers.heuristics.rows.tableau import RowData
from solvers.problem import Mask
from solvers.runtime.checkpoint import Arrays, Pieces, pack, unpack
from solvers.solution import check_bounds

STEPS = 5
"""Newton steps from a neighbour's split to a count's own."""
NOISE = 1e-12
"""Rounding in a search, as a share of the row's scale; see `CurveSearch.noise`."""
TRUST = 1.0
"""Branchings that a neighbour's pseudo-costs count for."""
FIXED = ("block", "n", "order", "settings", "keeps", "unfinished", "_data")
"""Attributes of a row that no search changes, and what stays where it is."""
PROOF = tuple(field.name for field in fields(Proof) if field.name != "blocks")
"""Fields of a tree's proof; its splits are diagonal."""


class CurveSearch:
    """The search of a row's curve `f(k)`, the least cost of pruning k entries, between `lower` and `values`.

    Args:
        block: the row, of one curvature and one pool; what it keeps does not matter.
        order: `[n]` its entries, in an order in which to prune them at first.
        values: `[n + 1]` what that costs; None to compute it.
        settings: of the trees.

    Attributes:
        values: `[n + 1]` cost of the best mask known of every count.
        lower: `[n + 1]` valid bounds.
        chosen: masks of the counts whose best is not the first entries of `order`.
        noise: what rounding may cost a bound.
        left: `[n + 1]` width that rounding made a finished search leave open.
        nodes: nodes of all trees so far.
        trees: how many there were.
        seconds: spent in them.
        gaps: `[n + 1]` relative gap that a search has proven, infinite if none has.
        splits: of counts.
        searches: proofs of counts that were searched, where they are recorded.
        costs: `[4, n]` pseudo-costs of the last search, or None.
        keeps: whether a search that was stopped is kept as `unfinished`, and gone on with.
        unfinished: that search, or None.
    """

    def __init__(
        self,
        block: Block,
        order: NDArray[np.int64],
        values: Array | None = None,
        settings: Settings = DEFAULT,
    ) -> None:
        self.block = replace(block, H=np.ascontiguousarray(block.H), B=np.ascontiguousarray(block.B))
        n = self.n = block.n
        self.order, self.settings = order, settings
        self.chosen: dict[int, Mask] = {}
        self.values = np.array(
            [block.value(self.mask(k)) for k in range(n + 1)] if values is None else values
        )
        self.lower = np.full(n + 1, block.floor)
        for k in (0, n):
            self.values[k] = block.value(self.mask(k))
            self.lower[k] = max(block.floor, self.values[k] - block.rounding) if k else self.values[k]
        self.noise = NOISE * block.scale
        self.left = np.zeros(n + 1)
        self.nodes = self.trees = 0
        self.seconds = 0.0
        self.gaps = np.full(n + 1, np.inf)
        self.gaps[[0, n]] = 0.0
        self.splits: dict[int, Split] = {}
        self.searches: dict[int, Proof] = {}
        self.costs: Array | None = None
        self.keeps = False
        self.unfinished: BlockTree | None = None
        w = np.ascontiguousarray(block.W[0, :, 0]) if block.refit else np.ones(n)
        linear = np.zeros(n) if block.refit else np.ascontiguousarray(block.B[0, :, 0])
        self._data = RowData(block.refit, self.block.H[0], w, linear, np.zeros(n, np.int64)).read_only()

    def at(self, k: int) -> Block:
        """The block with k entries pruned."""
        return replace(self.block, keep=np.array([self.n - k]))

    def mask(self, k: int) -> Mask:
        """`[n]` the best mask known of a count, True where pruned."""
        if k in self.chosen:
            return self.chosen[k].copy()
        mask = np.zeros(self.n, dtype=bool)
        mask[self.order[:k]] = True
        return mask

    def offer(self, pruned: Mask) -> None:
        """Take in a mask if it is the best of its count."""
        k = int(pruned.sum())
        value = self.block.value(pruned)
        if 0 < k < self.n and value < self.values[k]:
            self.values[k], self.chosen[k] = max(value, float(self.lower[k])), pruned.copy()

    def polish(self, stopped: Callable[[], object] = lambda: None) -> None:
        """Better masks of every count: from each one's neighbours by the best single move and best swaps."""
        for step in (1, -1):
            for k in range(0, self.n)[::step]:
                if stopped():
                    return
                self.follow(k if step > 0 else k + 1, step)

    def follow(self, k: int, step: int) -> None:
        """Offer what becomes of the mask of count k when one more entry goes (1) or comes back (-1)."""
        if not 0 < k + step < self.n:
            return
        self.offer(neighbour(self._data, self.mask(k), step))

    def root(self, k: int) -> Split:
        """The split of count k: by a few Newton steps from the nearest count's, if rows are small enough."""
        if k in self.splits:
            return self.splits[k]
        if not self.splits or self.n > WIDE or k in (0, self.n):
            self.learn(k, split_blocks([self.at(k)])[0])
            return self.splits[k]
        near = min(self.splits, key=lambda other: abs(other - k))
        block, split = self.block, self.splits[near]
        keep, found = self.n - k, np.empty((2, self.n))
        z = np.clip(split.z * (keep / max(float(split.z.sum()), 1e-9)), 0.0, 1.0)
        cutoff = float(self.values[k] + 1e-6 * abs(self.values[k]))
        _, d = improve(
            part_of(self.at(k)), split.d[0].copy(), z, cutoff, STEPS, 0.03, 0.005, found,
            np.zeros(1, np.bool_),
        )  # fmt: skip
        self.learn(k, Split(secure(block.H[0], d, block.refit)[None], found[1], STEPS))
        return self.splits[k]

    def learn(self, k: int, split: Split) -> None:
        """Keep the split of a count, and take the bounds that its point gives at every count."""
        self.splits[k] = split
        model = model_of(self.block, split.d)
        L, q, s = np.empty_like(model.R), np.empty_like(model.B), np.empty(self.n)
        _, base, rounding = evaluate(model, split.z, L, q, s)
        taken = np.concatenate([[0.0], np.cumsum(np.sort(s)[::-1])])[::-1]
        forming = formation(self.block, split.d)
        self.noise = max(self.noise, NOISE * self.block.scale + 2.0 * forming)
        self.raise_bounds(base - taken - rounding - forming)

    def prove(
        self, k: int, gap: float, stopped: Callable[[], object] = lambda: None, limit: int | None = None
    ) -> bool:
        """Search a count until its gap is proven, it is stopped, or so many nodes are processed.

        Args:
            k: pruned count.
            gap: relative to the value.
            stopped: polled often.
            limit: nodes at most.

        Returns:
            Whether it is proven.
        """
        if self.closed(k, gap):
            return True
        tree = self._tree(k, gap)
        nodes, seconds = tree.nodes, tree.seconds
        while not (tree.done or tree.full or stopped() or (limit is not None and tree.nodes >= limit)):
            tree.work()
        self.nodes += tree.nodes - nodes
        self.seconds += tree.seconds - seconds
        self.unfinished = tree if self.keeps and not (tree.done or tree.full) else None
        self.offer(tree.pruned)
        if self.settings.record and (k not in self.searches or tree.bound > self.searches[k].bound):
            self.searches[k] = tree.proof()
        bounds = np.full(self.n + 1, -math.inf)
        bounds[k] = tree.bound
        self.raise_bounds(bounds)
        if tree.done:
            self.gaps[k] = gap
            self.left[k] = self.values[k] - self.lower[k]
            costs = tree.search.costs
            counts = np.maximum(costs[1::2], 1e-300)
            self.costs = costs * np.repeat(np.minimum(1.0, TRUST / counts), 2, axis=0)
        return tree.done

    def _tree(self, k: int, gap: float) -> BlockTree:
        """The search that is to be gone on with, or a new one."""
        old = self.unfinished
        if old is not None and old.block.keep[0] == self.n - k and old.gap <= gap:
            return old
        tree = BlockTree(self.at(k), self.settings)
        tree.plant(self.root(k), self.mask(k), float(self.values[k]), gap)
        if self.costs is not None:
            tree.search.costs[:] = self.costs
        self.trees += 1
        return tree

    def closed(self, k: int, gap: float) -> bool:
        """Whether the gap of a count is proven, or as far as rounding lets it."""
        value = float(self.values[k])
        return bool(self.gaps[k] <= gap or value - self.lower[k] <= gap * abs(value))

    def raise_bounds(self, bounds: Array) -> None:
        """Take in valid bounds of all counts. Joint costs never fall when more is pruned.

        Raises:
            ArithmeticError: if one lies above a mask's cost by more than rounding.
        """
        np.fmax(self.lower, bounds, out=self.lower)
        if self.block.refit:
            np.maximum.accumulate(self.lower, out=self.lower)
        check_bounds(self.lower, self.values, self.block.scale)
        np.minimum(self.lower, self.values, out=self.lower)

    def proofs(self) -> list[Proof]:
        """What is proven: trees, and the root relaxation of every count that has a split."""
        roots = [
            root_proof(self.at(k), split)
            for k, split in sorted(self.splits.items())
            if k not in self.searches or len(self.searches[k].entry) > 1
        ]
        return [*roots, *self.searches.values()]

    def state(self) -> dict[str, Any]:
        """What a search changes, but for an unfinished tree; `vars(row).update(state)` takes it over."""
        return {name: value for name, value in vars(self).items() if name not in FIXED}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What its further course depends on, by name, but for its proofs and its unfinished tree."""
        n, counts = self.n, sorted(self.chosen)
        found = sorted(self.splits.items())
        worth = [(k, split) for k, split in found if split.steps or k in (0, n)]  # no hasty ones
        arrays = {
            "order": self.order, "values": self.values, "lower": self.lower, "left": self.left,
            "gaps": self.gaps, "numbers": np.array([self.noise, self.nodes, self.trees, self.seconds]),
            "chosen at": np.array(counts, np.int64),
            "chosen": np.array([self.chosen[k] for k in counts], bool).reshape(-1, n),
            "splits": np.array([(k, split.steps) for k, split in worth], np.int64).reshape(-1, 2),
            "d": np.array([split.d[0] for _, split in worth]).reshape(-1, n),
            "z": np.array([split.z for _, split in worth]).reshape(-1, n),
        }  # fmt: skip
        return arrays if self.costs is None else {**arrays, "costs": self.costs}

    def restore(self, arrays: Arrays) -> None:
        """Go on from what `arrays` gave.

        Raises:
            ValueError: for arrays of another row.
        """
        n = self.n
        if not np.array_equal(np.sort(arrays["order"]), np.arange(n)):
            raise ValueError("an order of entries is none")
        for name in ("order", "values", "lower", "left", "gaps"):
            getattr(self, name)[:] = arrays[name]
        self.noise, nodes, trees, self.seconds = arrays["numbers"].tolist()
        self.nodes, self.trees = int(nodes), int(trees)
        masks = arrays["chosen"].reshape(-1, n)
        self.chosen = dict(zip(arrays["chosen at"].tolist(), masks, strict=True))
        if any(mask.sum() != k for k, mask in self.chosen.items()):
            raise ValueError("masks have other counts")
        d, z = arrays["d"].reshape(-1, 1, n), arrays["z"].reshape(-1, n)
        splits = arrays["splits"].reshape(-1, 2).tolist()
        self.splits = {k: Split(d[i], z[i], steps) for i, (k, steps) in enumerate(splits)}
        self.costs = arrays["costs"].reshape(4, n) if "costs" in arrays else None


def freeze(rows: Sequence[CurveSearch]) -> Pieces:
    """Rows, their proofs and their unfinished trees, as `Checkpoint.save` takes them."""
    yield from pack("row", [row.arrays() for row in rows])
    proofs, trees = [], []
    for r, row in enumerate(rows):
        for k, proof in sorted(row.searches.items()):
            parts = {name: getattr(proof, name) for name in PROOF}
            known = {name: np.asarray(part) for name, part in parts.items() if part is not None}
            proofs.append({"at": np.array([r, k]), **known})
        if row.unfinished is not None:
            at = np.array([r, row.n - row.unfinished.block.keep[0]])
            trees.append({"at": at, **row.unfinished.arrays()})
    yield from pack("proof", proofs)
    yield from pack("unfinished", trees)


def thaw(found: Sequence[Block], arrays: Arrays, settings: Settings) -> list[CurveSearch]:
    """The rows that `freeze` was given.

    Args:
        found: their blocks, with any counts.
        arrays: as `Checkpoint.load` gives them.
        settings: of the trees.

    Raises:
        ValueError: if the arrays don't fit.
        KeyError: if some are missing.
    """
    rows = []
    for block, saved in zip(found, unpack("row", arrays), strict=True):
        rows.append(CurveSearch(block, saved["order"], saved["values"], settings))
        rows[-1].restore(saved)
    for saved in unpack("proof", arrays):
        r, k = saved.pop("at").tolist()
        parts: dict[str, Any] = dict.fromkeys(PROOF) | saved
        rows[r].searches[k] = Proof(**parts)
    for saved in unpack("unfinished", arrays):
        r, k = saved["at"].tolist()
        rows[r].unfinished = BlockTree(rows[r].at(k), settings).restore(saved)
    return rows
