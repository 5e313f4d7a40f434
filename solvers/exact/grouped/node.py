"""A node's relaxation: the best split in groups of what is left of a row, from that of its parent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.groups.central_path import CentralPath, grouped
from solvers.bounds.groups.split import GroupSplit, bound_and_regrets, secure_groups
from solvers.bounds.node.restriction import Part, restrict
from solvers.bounds.split import split_blocks
from solvers.exact.grouped.branching import rises, slow
from solvers.exact.grouped.inheritance import Seed, at_shares, families_of, groups_of, merged, restricted
from solvers.form.blocks import Block
from solvers.hessian import Array

SIZE = 8
"""Entries of a group."""
WARM = 2.0
"""Temperature times the barrier's parameter, as a share of the gap, where blocks are left: hot, as what
branching looks at is then smooth, and takes a third of the nodes that it does at 0.3."""
COLD = 0.2
"""The same where the blocks go on for the sake of the bound alone, as branching gains slowly."""
LAST = 0.03
"""The same where the point at them is."""
FIRST = 2.0
"""The same where a child's blocks begin to move."""
HELD = 6
"""Newton steps of a child's point before they do."""


@dataclass(frozen=True)
class Relaxed:
    """Where a node's relaxation ended.

    Attributes:
        free: `[f]` the entries that it left free.
        bound: certified, of what is left of the row.
        split: secured, of the bound; in the numbering of the free entries.
        seed: what children start from.
        z: `[f]` the share of every entry that is kept.
        kept: `[f]` by how much the bound rises if an entry has to be kept.
        pruned: `[f]` if it has to be pruned.
        gains: `[2, f]` by how much the bound should rise once an entry is pruned, or kept.
        steps: Newton steps taken.
    """

    free: NDArray[np.int64]
    bound: float
    split: GroupSplit
    seed: Seed
    z: Array
    kept: Array
    pruned: Array
    gains: Array
    steps: int


def left_of(part: Part, rows: NDArray[np.int64], fix: NDArray[np.int8]) -> tuple[NDArray[np.int64], Block]:
    """The entries that fixings leave free, at least one, and the block of them; pools without any vanish."""
    free, rest = restrict(part, fix)
    W = np.linalg.solve(rest.H, rest.B)
    pools, labels = np.unique(rest.labels, return_inverse=True)
    return free, Block(True, rest.H, rest.B, W, float(rest.constant), labels, rest.keep[pools], rows)


def relax(
    block: Block,
    free: NDArray[np.int64],
    fix: NDArray[np.int8],
    parent: Seed | None,
    value: float,
    cutoff: float,
    stopped: Callable[[], object],
) -> Relaxed | None:
    """The relaxation of what is left of a row, or None where none was found.

    Args:
        block: what is left; no pool keeps all or nothing of it.
        free: `[f]` its entries' names.
        fix: `[n]` 1 kept, -1 pruned, 0 free.
        parent: of a relaxation before, whose free entries hold all of these; None for none.
        value: of a mask of the row, positive.
        cutoff: a bound past it ends the work.
        stopped: polled between steps; a true answer ends it, too.
    """
    path = _opened(block, free, fix, parent, value, cutoff)
    if path is None:
        return None
    path.follow(lambda gap: WARM * gap, lambda: stopped() or path.bound >= cutoff)
    if path.point is None:
        return None
    last = path.system.unpack(path.split, path.point.x)
    groups = groups_of(block, last, path.T * value)
    z = np.zeros(block.n)
    for group in groups:
        z[group.members] = group.kept
    compliance = path.compliance() if path.bound < cutoff else None
    gains = rises(z, np.ones(block.n) if compliance is None else compliance) * value
    if slow(gains, z, cutoff - path.bound):
        path.follow(lambda gap: COLD * gap, lambda: stopped() or path.bound >= cutoff)
    best = path.best
    if path.bound < cutoff:
        heat = WARM * max(1.0 - path.bound / value, 1e-6)
        point = CentralPath(block, best, value, held=True, heat=heat)
        point.follow(lambda gap: LAST * gap, lambda: stopped() or point.bound >= cutoff)
        best = point.best if point.bound > path.bound else best
    split = secure_groups(block.H[0], best)
    bound, kept, pruned = bound_and_regrets(block, split)
    seed = Seed(free, groups, last.t[block.labels])
    return Relaxed(free, bound, split, seed, z, kept, pruned, gains, path.steps)


def _opened(
    block: Block,
    free: NDArray[np.int64],
    fix: NDArray[np.int8],
    parent: Seed | None,
    value: float,
    cutoff: float,
) -> CentralPath | None:
    """The path at its first point, which may pass the cutoff already."""
    if parent is None:
        own = split_blocks([block])[0]
        return CentralPath(block, grouped(block, own.d[0], own.z, SIZE), value)
    place = np.full(len(fix), -1)
    place[free] = np.arange(len(free))
    groups = restricted(parent.groups, fix[parent.free], place[parent.free])
    prices, t = np.zeros(len(fix)), np.zeros(len(block.keep))
    prices[parent.free] = parent.t
    t[block.labels] = prices[free]
    bare = GroupSplit(families_of(groups), np.zeros(block.n), t)
    groups = merged(groups, np.linalg.inv(bare.scaled(0.99).remainder(block.H[0])), block.labels, SIZE)
    split, cost = at_shares(block, groups, t)
    heat = WARM * min(max(1.0 - cost / value, 0.01), 1.0)
    path = CentralPath(block, split, value, held=True, heat=heat)
    left = iter(range(HELD))
    path.follow(lambda gap: 0.1 * heat, lambda: next(left, None) is None or path.bound >= cutoff)
    if path.point is None:
        return None
    heat = FIRST * min(max(1.0 - path.bound / value, 0.01), 1.0)
    return CentralPath(block, path.best, value, heat=heat)
