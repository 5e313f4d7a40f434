"""Branch and bound with the nodes of many blocks in one step, on any device of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from solvers.bounds.node.oracle import EPS, formation
from solvers.bounds.split import Split
from solvers.control import Control
from solvers.exact.batched.batch import Batch
from solvers.exact.batched.open_nodes import Nodes, OpenNodes
from solvers.exact.tree.forest import block_gap
from solvers.exact.tree.subtree import at_root
from solvers.form.blocks import Block, assemble
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.tensors import Tensor, torch
from solvers.solution import Status
from solvers.solver import Outcome

WORK = {"cpu": 1 << 24, "cuda": 1 << 29}
"""Products of numbers in a step of the ascent of one batch."""
ROOT_STEPS = 200
"""Steps of the ascent at the roots."""
STEPS = 12
"""Steps of a node's ascent, from its parent's point."""
ROUNDED = 8
"""Nodes of a block in a batch that are rounded, or closed as leaves."""
PRIOR = 0.05
"""Of the mean rate of a block's pseudo-costs, counted as a squared share moved."""


class Frontier:
    """The open nodes of blocks of one shape, with every block's incumbent and bound.

    A step takes the nodes of least bound of every block, bounds them all, fixes what their scores
    decide, rounds some, and branches where the pseudo-costs, first learnt by fixing every entry of the
    roots both ways, see the largest product of gains.

    Args:
        blocks: of one shape, with the same pools.
        splits: theirs.
        pruned: `[n]` incumbent of every block, True where pruned.
        gap: relative gap to prove.
        memory: bytes that open nodes may take; where they run short the search is depth-first.
        device: torch device.
        batch: nodes of a step, by default as many as `WORK` allows.

    Attributes:
        blocks: as given.
        pruned: incumbents.
        values: `[F]` their costs.
        nodes: bounded so far.
        batches: steps so far.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        splits: Sequence[Split],
        pruned: Sequence[Mask],
        *,
        gap: float,
        memory: int,
        device: str = "cpu",
        batch: int | None = None,
    ) -> None:
        first, count = blocks[0], len(blocks)
        n, (g, _, c) = first.n, first.B.shape
        self.blocks, self.pruned = list(blocks), list(pruned)
        self.values = np.array([b.value(p) for b, p in zip(blocks, pruned, strict=True)])
        self.gap, self.nodes, self.batches = gap, 0, 0
        self.model = Batch.of(blocks, splits, device)
        self.costs = Costs(count, n, device)
        self.formation = np.array([formation(b, s.d) for b, s in zip(blocks, splits, strict=True)])
        bound, rounding = np.array([at_root(b, s) for b, s in zip(blocks, splits, strict=True)]).T
        scale = np.array([b.scale for b in blocks])
        self.noise = np.maximum(64.0 * (n + 8) * EPS * scale, 2.0 * rounding + self.formation)
        roots = Nodes.none(count, (g, c, n), device)
        roots.owner[:] = torch.arange(count)
        roots.lower[:] = torch.as_tensor(np.maximum(bound, [b.floor for b in blocks]))
        self.floor = torch.full_like(roots.lower, torch.inf)
        self.open = OpenNodes(roots, memory)
        if batch is None:
            batch = WORK["cpu" if roots.lower.device.type == "cpu" else "cuda"] // (g * c * n * n)
        self.batch = max(1, min(batch, self.open.capacity // (4 * (n + 1))))

    @property
    def done(self) -> bool:
        """Whether all blocks are proven."""
        return len(self.open) == 0

    @property
    def bounds(self) -> list[float]:
        """Of every block: the least bound of what is open and of what was cut off within the gap."""
        open_or_cut = torch.minimum(self.floor, self.open.least(len(self.blocks))).cpu().numpy()
        lowest = np.minimum(open_or_cut, self.values) - self.formation
        return [max(block.floor, float(low)) for block, low in zip(self.blocks, lowest, strict=True)]

    def plant(self, stopped: Callable[[], object] = lambda: None) -> None:
        """Bound the roots well, and fix each of their entries both ways, to learn the pseudo-costs.

        Args:
            stopped: polled often; a true answer ends the work.
        """
        here, grid = self.open.next(len(self.blocks), False)
        n, nodes = self.blocks[0].n, self.open.nodes
        entry = torch.arange(n, device=here.device).repeat_interleave(2)
        sign = torch.tensor([-1, 1], dtype=torch.int8, device=here.device).repeat(n)
        each = max(1, self.batch // (2 * n))
        for some, place in zip(torch.split(here, each), torch.split(grid, each), strict=True):
            if stopped():
                return
            model, cutoff = self.model.select(some), self._cutoff()[some]
            fix, _ = model.pools.settle(nodes.fix[place], model.keep)
            shares, x = model.ascend(fix, nodes.x[place], ROOT_STEPS)
            found = model.evaluate(fix, model.point(x))
            fix, least = model.fix(fix, found, cutoff)
            self._cut(some, least)
            free = (fix == 0)[:, 0, entry]
            both = fix.expand(-1, 2 * n, -1).clone()
            both.scatter_(2, entry.expand(len(some), -1)[..., None], sign.expand(len(some), -1)[..., None])
            both, impossible = model.pools.settle(both, model.keep)
            _, points = model.ascend(both, x.expand(-1, 2 * n, -1, -1, -1), STEPS)
            lower = torch.where(impossible, torch.inf, model.evaluate(both, model.point(points)).lower)
            moved = torch.where(sign > 0, 1.0 - shares[:, 0, entry], shares[:, 0, entry])
            self.costs.learn(some, (entry + 1) * sign * free, lower - found.lower, moved)
            past = free & (lower >= cutoff[:, None])
            self._cut(some, torch.where(past, lower, torch.inf))
            forced = torch.where(past, -sign, 0).to(fix.dtype)
            nodes.fix[place] = fix + forced[:, None, ::2] + forced[:, None, 1::2]
            worse = torch.where(free, lower, -torch.inf).reshape(-1, n, 2).amin(2).amax(1, keepdim=True)
            lower = torch.maximum(found.lower, worse)
            nodes.lower[place] = torch.maximum(nodes.lower[place], lower)
            nodes.x[place] = x
            self.batches += 1

    def step(self, most: int | None = None) -> None:
        """Take a batch of nodes, of at most so many, from the open ones, and put in their children."""
        left = len(self.open)
        size = self.batch if most is None else min(self.batch, most)
        deep = self.open.capacity - left < 2 * (self.blocks[0].n + 1) * self.batch
        blocks, grid = self.open.next(size, deep)
        held, model = self.open.take(grid), self.model.select(blocks)
        fix, impossible = model.pools.settle(held.fix, model.keep)
        shares, x = model.ascend(fix, held.x, STEPS)
        found = model.evaluate(fix, model.point(x))
        here = (grid >= 0) & ~impossible
        self.costs.learn(blocks, held.side * here, found.lower - held.lower, held.share)
        bound = torch.where(here, torch.maximum(found.lower, held.lower), torch.inf)
        fix, least = model.fix(fix, found, self._cutoff()[blocks])
        self._cut(blocks, torch.where(here, least, torch.inf))
        fix, _ = model.pools.settle(fix, model.keep)
        leaf = here & (fix != 0).all(-1)
        bound, closed = self._round(blocks, model, fix, shares, bound, leaf)
        closed = closed | (bound >= self._cutoff()[blocks][:, None])
        self._cut(blocks, torch.where(closed, bound, torch.inf))
        now = held._replace(owner=blocks[:, None].expand_as(bound), lower=bound, fix=fix, x=x)
        again = leaf & ~closed
        self.open.add(now._replace(side=torch.zeros_like(now.side)).at(again))
        self._branch(blocks, now, shares, here & ~leaf & ~closed)
        self._cut(
            torch.arange(len(self.blocks), device=blocks.device), self.open.close(self._cutoff())[:, None]
        )
        self.nodes += int(here.sum())
        self.batches += 1

    def _cutoff(self) -> Tensor:
        """`[F]` the bound that proves every block's incumbent."""
        room = np.maximum(self.gap * np.abs(self.values) - self.formation, self.noise)
        return torch.as_tensor(self.values - room, device=self.floor.device)

    def _cut(self, blocks: Tensor, lower: Tensor) -> None:
        """Take note of bounds `[F, b]` of what is not looked at again."""
        self.floor[blocks] = torch.minimum(self.floor[blocks], lower.flatten(1).amin(1))

    def _round(
        self, blocks: Tensor, model: Batch, fix: Tensor, shares: Tensor, bound: Tensor, leaf: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Round the best nodes of every block and close leaves: the bounds, and which nodes are closed."""
        order = torch.where(leaf, -torch.inf, bound).argsort(dim=1, stable=True)[:, :ROUNDED, None]
        some = fix.gather(1, order.expand(-1, -1, fix.shape[2]))
        ranked = model.pools.rank(shares.gather(1, order.expand_as(some)), some, model.need(some))
        kept = (some > 0) | model.pools.unrank(ranked, ranked.taken)
        cost, u = model.exact(kept)
        lower = model.evaluate(torch.where(kept, 1, -1).to(fix.dtype), u).lower
        order = order[..., 0]
        here = bound.gather(1, order)
        cost = torch.where(here.isfinite(), cost, torch.inf).nan_to_num(torch.inf)
        at_leaf = leaf.gather(1, order)
        bound = bound.scatter(1, order, torch.where(at_leaf, torch.maximum(here, lower), here))
        self._improve(blocks, kept, cost)
        return bound, torch.zeros_like(leaf).scatter(1, order, at_leaf)

    def _improve(self, blocks: Tensor, kept: Tensor, cost: Tensor) -> None:
        """Take each block's best mask of a grid where it beats the incumbent."""
        best, at = (x.cpu().numpy() for x in cost.min(1))
        names = blocks.cpu().numpy()
        for k in np.flatnonzero(best < self.values[names]):
            pruned = ~kept[k, at[k]].cpu().numpy()
            value = self.blocks[names[k]].value(pruned)
            if value < self.values[names[k]]:
                self.values[names[k]], self.pruned[names[k]] = value, pruned

    def _branch(self, blocks: Tensor, nodes: Nodes, shares: Tensor, split: Tensor) -> None:
        """Put in both children of the nodes `[F, b]` to split."""
        down, up = self.costs.gains(blocks, shares.clamp(0.01, 0.99))
        room = (self._cutoff()[blocks][:, None] - nodes.lower)[..., None]
        low, high = (torch.maximum(torch.minimum(gain, room), 1e-6 * room) for gain in (down, up))
        entry = torch.where(nodes.fix == 0, low * high, -torch.inf).argmax(-1, keepdim=True)
        share = shares.gather(-1, entry)
        for sign, moved in ((-1, share), (1, 1.0 - share)):
            child = nodes._replace(
                level=nodes.level + 1, fix=nodes.fix.scatter(-1, entry, sign),
                side=(sign * (entry[..., 0] + 1)).int(), share=moved[..., 0],
            )  # fmt: skip
            self.open.add(child.at(split))


class Costs:
    """Pseudo-costs of F blocks (Benichou et al. 1971): what fixing an entry lifts a bound by, per share.

    Least-squares rates of every entry, pruned and kept.

    Args:
        blocks: F.
        n: entries of a block.
        device: torch device.
    """

    def __init__(self, blocks: int, n: int, device: str) -> None:
        self.moment = torch.zeros((2, blocks, n), dtype=torch.float64, device=device)
        self.weight = torch.zeros_like(self.moment)

    def learn(self, blocks: Tensor, side: Tensor, gain: Tensor, share: Tensor) -> None:
        """Take in a grid `[F, b]` of branchings.

        Args:
            blocks: `[F]` the blocks of the grid, distinct.
            side: entry plus one, negative where pruned; 0 to leave out.
            gain: what it lifted the bound by.
            share: how far it moved the entry's share.
        """
        entry = (side.abs().long() - 1).clamp_min(0)[..., None]
        share = share.double()
        good = gain.isfinite()
        gain = torch.where(good, gain, 0.0).clamp_min(0.0)
        grid = gain.new_zeros((*side.shape, self.moment.shape[-1]))
        for direction, here in enumerate((good & (side < 0), good & (side > 0))):
            for table, amount in ((self.moment, gain * share), (self.weight, share * share)):
                table[direction, blocks] += grid.scatter(-1, entry, (amount * here)[..., None]).sum(1)

    def gains(self, blocks: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """What pruning and what keeping each entry may gain, `[F, b, n]` each, at relaxed shares."""
        moment, weight = self.moment[:, blocks], self.weight[:, blocks]
        mean = moment.sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp_min(1e-300)
        rate = ((moment + PRIOR * mean) / (weight + PRIOR))[:, :, None]
        return rate[0] * shares, rate[1] * (1.0 - shares)


def search_in_batches(
    problem: SubsetProblem,
    found: Sequence[Block],
    splits: Sequence[Split],
    mask: Mask,
    control: Control,
    *,
    node_limit: int | None,
    memory: int,
) -> Outcome:
    """Best-first search of all blocks at once on the control's device, from a mask's decisions.

    Args:
        problem: what is solved.
        found: its blocks.
        splits: theirs.
        mask: `[m, n]` incumbent.
        control: limits, device, progress.
        node_limit: nodes over all blocks, or None.
        memory: bytes that all open nodes may take.
    """
    pruned = [mask[block.rows[0]] for block in found]
    gap = block_gap(control, [block.value(p) for block, p in zip(found, pruned, strict=True)])
    groups = _alike(found)
    frontiers = [
        Frontier(
            [found[i] for i in group], [splits[i] for i in group], [pruned[i] for i in group],
            gap=gap, memory=memory * len(group) // len(found), device=control.device,
        )
        for group in groups
    ]  # fmt: skip

    def now() -> tuple[float, float, int]:
        values = sum(float(frontier.values.sum()) for frontier in frontiers)
        bounds = sum(sum(frontier.bounds) for frontier in frontiers)
        return values, bounds, sum(frontier.nodes for frontier in frontiers)

    reason: Status | None = None
    planted = 0
    while reason is None and not all(frontier.done for frontier in frontiers):
        reason = control.stopped()
        left = None if node_limit is None else node_limit - now()[2]
        if left is not None and left <= 0:
            reason = reason or Status.NODE_LIMIT
        if reason is not None:
            break
        if planted < len(frontiers):
            frontiers[planted].plant(control.stopped)
            planted += 1
        else:
            min((f for f in frontiers if not f.done), key=lambda f: f.nodes).step(left)
        control.report(*now())
    for group, frontier in zip(groups, frontiers, strict=True):
        for i, choice in zip(group, frontier.pruned, strict=True):
            pruned[i] = choice
    final = assemble(problem, list(found), pruned)
    _, bound, nodes = now()
    control.report(problem.value(final), bound, nodes, final)
    stats = {
        "engine": "batched",
        "nodes": nodes,
        "batches": sum(frontier.batches for frontier in frontiers),
        "split": "own",
        "splits": len(found),
    }
    return Outcome(final, bound, reason or Status.OPTIMAL, stats)


def _alike(found: Sequence[Block]) -> list[list[int]]:
    """Places of blocks that have one shape and the same pools."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, block in enumerate(found):
        groups.setdefault((block.refit, block.B.shape, block.labels.tobytes()), []).append(i)
    return list(groups.values())
