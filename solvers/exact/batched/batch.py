"""Relaxations of many nodes at once: blocks of one shape at their splits, as tensors.

Nodes come as a grid `[F, b]`, b of each of F blocks, so that a step for all of them is one batched
product `[F, g, b c, n] @ [F, g, n, n]`. Points are `[F, b, g, c, n]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.node.oracle import EPS
from solvers.bounds.split import Split
from solvers.form.blocks import Block
from solvers.runtime.tensors import Tensor, torch

RELAX = 1.8
"""Over-relaxation of a step."""
PENALTY = 1.0
"""Of the distance between the two copies of a point, where d is one."""


class Ranked(NamedTuple):
    """Free entries of every pool by falling score.

    Attributes:
        order: `[.., pools, width]` places in the pool.
        score: `[.., pools, width]` their scores, minus infinity where nothing is free.
        taken: `[.., pools, width]` whether it is among the best that the pool still has to keep.
        total: `[..]` sum of the scores taken.
    """

    order: Tensor
    score: Tensor
    taken: Tensor
    total: Tensor


@dataclass(frozen=True)
class Pools:
    """Which entries share a pool.

    Attributes:
        labels: `[n]` pool of every entry.
        member: `[n, pools]` single precision, one where the entry is in the pool.
        places: `[pools, width]` entries of every pool, n where there are no more.
    """

    labels: Tensor
    member: Tensor
    places: Tensor

    @classmethod
    def of(cls, labels: NDArray[np.int64], count: int, device: str) -> Pools:
        """Pools from the label of every entry."""
        n = len(labels)
        places = np.full((count, int(np.bincount(labels, minlength=count).max())), n)
        for p in range(count):
            inside = np.flatnonzero(labels == p)
            places[p, : len(inside)] = inside
        member = (labels[:, None] == np.arange(count)).astype(np.float32)
        return cls(*(torch.as_tensor(x, device=device) for x in (labels, member, places)))

    def total(self, x: Tensor) -> Tensor:
        """`[.., pools]` sums of `[.., n]`; of few enough ones to be exact where they are counted."""
        sums: Tensor = x.float() @ self.member
        return sums

    def settle(self, fix: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Fix what full and empty pools leave no choice about: fixings, and where no mask is left.

        Args:
            fix: `[F, b, n]` 1 kept, -1 pruned, 0 free.
            keep: `[F, pools]` entries to keep.
        """
        need, free = keep[:, None, :] - self.total(fix > 0), self.total(fix == 0)
        impossible = ((need < 0) | (need > free)).any(-1)
        forced = torch.where(need <= 0, -1, torch.where(need >= free, 1, 0)).to(fix.dtype)
        return torch.where(fix == 0, forced[..., self.labels], fix), impossible

    def fill(
        self, slope: Tensor, offset: Tensor, free: Tensor, need: Tensor, t: Tensor | None, rounds: int
    ) -> tuple[Tensor, Tensor]:
        """Shares `[.., n]` `clip(slope t + offset, 0, 1)` of free entries, and t such that pools keep `need`.

        By Newton steps on t inside a bracket; where `rounds` are too few the sums are off.

        Args:
            slope: `[.., n]` positive.
            offset: broadcast with it.
            free: `[.., n]` bool.
            need: `[.., pools]` sums.
            t: `[.., pools]` where to start, or None.
            rounds: evaluations.
        """
        slope = slope.clamp_min(1e-30)
        low = torch.where(free, -offset / slope, torch.inf).amin(-1, keepdim=True).expand_as(need)
        high = torch.where(free, (1.0 - offset) / slope, -torch.inf).amax(-1, keepdim=True).expand_as(need)
        if t is None:
            t = (need - self.total(free * offset)) / self.total(free * slope).clamp_min(1e-30)
        shares = torch.zeros_like(slope)
        for _ in range(rounds):
            raw = slope * t[..., self.labels] + offset
            shares = torch.where(free, raw.clamp(0.0, 1.0), 0.0)
            short = need - self.total(shares)
            rate = self.total(torch.where(free & (raw > 0.0) & (raw < 1.0), slope, 0.0))
            low, high = torch.where(short > 0, t, low), torch.where(short < 0, t, high)
            step = t + short / rate
            step = torch.where((step >= low) & (step <= high), step, 0.5 * (low + high))
            t = torch.where(short.abs() > 1e-6 * (1.0 + need), step, t)
        return shares, t

    def rank(self, scores: Tensor, fix: Tensor, need: Tensor) -> Ranked:
        """Free entries by score; `need` `[.., pools]` of each pool are taken."""
        free = torch.where(fix == 0, scores, -torch.inf)
        padded = torch.constant_pad_nd(free, [0, 1], -torch.inf)[..., self.places]
        score, order = padded.sort(dim=-1, descending=True, stable=True)
        taken = torch.arange(score.shape[-1], device=score.device) < need[..., None]
        return Ranked(order, score, taken, torch.where(taken, score, 0.0).sum((-2, -1)))

    def unrank(self, ranked: Ranked, values: Tensor) -> Tensor:
        """`[.., n]` from values `[.., pools, width]` in the order of a ranking."""
        back = torch.empty_like(values).scatter(-1, ranked.order, values)
        out = values.new_zeros((*values.shape[:-2], len(self.labels) + 1))
        out[..., self.places.flatten()] = back.flatten(-2)
        return out[..., :-1]


class Bounds(NamedTuple):
    """What an evaluation says of a grid of nodes.

    Attributes:
        lower: `[F, b]` valid lower bounds, where the fixings leave a mask.
        scores: `[F, b, n]` as in `solvers.bounds.node.oracle`.
    """

    lower: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Batch:
    """Blocks of one shape at their splits.

    Attributes:
        refit: joint, or selection.
        pools: of the entries, the same in every block.
        keep: `[F, pools]` entries to keep.
        H: `[F, g, n, n]`.
        R: `[F, g, n, n]`, `H - diag(d)`.
        d: `[F, g, n]`.
        B: `[F, g, c, n]`.
        constant: `[F]` as in `solvers.form.blocks.Block`.
        unit: `[F, g, 1, 1, n]` size of an entry of u where d is one.
        scaled: `[F, g, n, n]` single precision, R in these units.
        inverse: `[F, g, n, n]` single precision, of `scaled` plus the penalty.
        target: `[F, g, 1, c, n]` single precision, the linear term in these units.
    """

    refit: bool
    pools: Pools
    keep: Tensor
    H: Tensor
    R: Tensor
    d: Tensor
    B: Tensor
    constant: Tensor
    unit: Tensor
    scaled: Tensor
    inverse: Tensor
    target: Tensor

    @classmethod
    def of(cls, blocks: Sequence[Block], splits: Sequence[Split], device: str) -> Batch:
        """The batch of blocks that have one shape and the same pools."""

        def tensor(A: object) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(A), device=device)

        first = blocks[0]
        H, d = tensor(np.stack([b.H for b in blocks])), tensor(np.stack([s.d for s in splits]))
        R = H - torch.diag_embed(d)
        B = tensor(np.stack([b.B for b in blocks])).mT.contiguous()
        if first.refit:
            root = d.rsqrt()
            scaled = root[..., :, None] * R * root[..., None, :]
            linear = (B * root[:, :, None, :])[:, :, None]
            size = linear.abs().amax((1, 2, 3, 4), keepdim=True).clamp_min(1e-300)
            unit = root[:, :, None, None, :] * size
        else:
            spread = torch.diagonal(R, dim1=-2, dim2=-1).mean(-1).clamp_min(1e-300)
            scaled, size = R / spread[:, :, None, None], spread[:, :, None, None, None]
            linear = (B - 0.5 * d[:, :, None, :])[:, :, None]
            unit = torch.ones_like(d)[:, :, None, None, :]
        inverse = torch.linalg.inv(scaled + PENALTY * torch.eye(first.n, dtype=H.dtype, device=device))
        keep, constant = tensor(np.stack([b.keep for b in blocks])), tensor([b.constant for b in blocks])
        pools = Pools.of(first.labels, len(first.keep), device)
        return cls(
            first.refit, pools, keep, H, R, d, B, constant, unit,
            scaled.float(), inverse.float(), (linear / size).float(),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.keep)

    def select(self, index: Tensor) -> Batch:
        """Some of the blocks."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.type == "Tensor"}
        return replace(self, **{name: x[index] for name, x in tensors.items()})

    def need(self, fix: Tensor) -> Tensor:
        """`[F, b, pools]` entries that pools still have to keep."""
        return self.keep[:, None, :] - self.pools.total(fix > 0)

    def ascend(self, fix: Tensor, x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Shares `[F, b, n]` and points, in our units, near the solutions of the nodes' relaxations.

        By the alternating direction method of multipliers (Boyd et al. 2011, section 3) on
        `1/2 x'Rx - b'x`, whose matrix is the same for all nodes of a block, and the perspective term of
        the shares (joint) or the box (selection), whose fixings and budget a sort would solve and a few
        Newton steps do. In single precision: any point has a valid bound.

        Args:
            fix: `[F, b, n]` 1 kept, -1 pruned, 0 free, as `Pools.settle` leaves it.
            x: points to start from, in single precision and our units (see `point`).
            steps: how many.
        """
        rho = PENALTY
        free, kept, need = fix == 0, (fix > 0).float(), self.need(fix)
        x = x.movedim(2, 1)
        dual = (self.target - _product(x, self.scaled)) / rho
        y = shares = x
        a = x + dual
        level = None
        for step in range(steps):
            if self.refit:
                slope = a.square().sum((1, 3)).sqrt() / rho
                offset = torch.full_like(slope, -1.0 / rho)
            else:
                slope, offset = torch.ones_like(kept), 1.0 - a[:, 0, :, 0]
            shares, level = self.pools.fill(slope, offset, free, need, level, 4 if step else 12)
            shares = shares + kept
            weight = (rho * shares)[:, None, :, None, :]
            y = a * (weight / (1.0 + weight)) if self.refit else (1.0 - shares)[:, None, :, None, :]
            dual = a - y
            x = _product(self.target + rho * (y - dual), self.inverse)
            a = RELAX * x + (1.0 - RELAX) * y + dual
        return shares, x.movedim(1, 2)

    def point(self, x: Tensor) -> Tensor:
        """Points in the units of the problem, in double precision."""
        return (x.movedim(2, 1) * self.unit).movedim(1, 2)

    def evaluate(self, fix: Tensor, u: Tensor) -> Bounds:
        """The bound at any points, with a margin for rounding.

        Formulas and margins are those of `solvers.bounds.node.oracle.evaluate`, in double precision.

        Args:
            fix: `[F, b, n]` 1 kept, -1 pruned, 0 free.
            u: the points.
        """
        n, d = fix.shape[-1], self.d[:, :, None, None, :]
        B, constant, root = self.B[:, :, None], self.constant[:, None], self._root()
        u = u.movedim(2, 1)
        Ru = _product(u, self.R)
        quadratic = 0.5 * (u * Ru).sum((1, 3, 4))
        reach = (root * u.abs()).sum(-1, keepdim=True)
        if self.refit:
            q = B - Ru
            scores = (q * q / (2.0 * d)).sum((1, 3))
            steepest = (2.0 * self.constant[:, None, None, None, None] / d).sqrt()
            slope = torch.minimum(q.abs() / d, steepest)
            spread = (reach * reach)[..., 0].sum((1, 3))
            spread = spread + (slope * (root * reach + B.abs())).sum((1, 3, 4))
            base, size = constant - quadratic, constant + spread + quadratic.abs() + scores.sum(-1)
        else:
            shift = 0.5 * d - B
            scores = (Ru + shift)[:, 0, :, 0]
            size = ((Ru.abs() + shift.abs())[:, 0, :, 0] + scores.abs()).sum(-1)
            size = (
                size + (root.sum(-1, keepdim=True) * reach)[:, 0, :, 0, 0] + quadratic.abs() + constant.abs()
            )
            base = constant + scores.sum(-1) - quadratic
        ranked = self.pools.rank(scores, fix, self.need(fix))
        best = torch.where(fix > 0, scores, 0.0).sum(-1) + ranked.total
        lower = base - best - 4.0 * (n + 8) * EPS * size
        return Bounds(lower.nan_to_num(-torch.inf), scores)

    def fix(self, fix: Tensor, found: Bounds, cutoff: Tensor) -> tuple[Tensor, Tensor]:
        """Fix free entries whose other choice lifts the bound past the cutoff: fixings, their least bound.

        See `solvers.exact.tree.fixing.fix_by_scores`.

        Args:
            fix: `[F, b, n]` fixings, as `Pools.settle` leaves them.
            found: their bounds.
            cutoff: `[F]`.
        """
        need = self.need(fix)
        ranked = self.pools.rank(found.scores, fix, need)
        places = need[..., None].long()
        width = ranked.score.shape[-1]
        inner = ranked.score.gather(-1, (places - 1).clamp(0, width - 1))
        outer = ranked.score.gather(-1, places.clamp(0, width - 1))
        lift = torch.where(ranked.taken, ranked.score - outer, inner - ranked.score)
        other = found.lower[..., None, None] + lift
        passed = ranked.score.isfinite() & (other >= cutoff[:, None, None, None])
        side = torch.where(ranked.taken, 1, -1).to(fix.dtype) * passed
        least = torch.where(passed, other, torch.inf).amin((-2, -1))
        return fix + self.pools.unrank(ranked, side), least

    def exact(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Costs `[F, b]` of masks, up to rounding, and points with bounds as high.

        Args:
            kept: `[F, b, n]` bool.
        """
        if not self.refit:
            x = (~kept).double()[:, None, :, None, :]
            cost = (x * (0.5 * _product(x, self.H) - self.B[:, :, None])).sum((1, 3, 4))
            return cost, x.movedim(1, 2)
        on = kept.double()[:, None]
        M = self.H[:, :, None] * (on[..., :, None] * on[..., None, :]) + torch.diag_embed(1.0 - on)
        right = (self.B[:, :, None] * on[:, :, :, None, :]).mT
        u = torch.cholesky_solve(right, torch.linalg.cholesky_ex(M).L)
        cost = self.constant[:, None] - 0.5 * (right * u).sum((1, 3, 4))
        return cost, u.mT.movedim(1, 2)

    def _root(self) -> Tensor:
        """`|H_kk|^1/2` (joint) or more, by which products with R are bounded: `[F, g, 1, 1, n]`."""
        size = torch.diagonal(self.R, dim1=-2, dim2=-1).abs() + self.d.abs()
        return size.sqrt()[:, :, None, None, :]


def _product(x: Tensor, A: Tensor) -> Tensor:
    """`[F, g, b, c, n]` times `[F, g, n, n]`."""
    return (x.flatten(2, 3) @ A).reshape(x.shape)
