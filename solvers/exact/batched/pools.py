"""Pools of entries under a grid of nodes, as tensors: counts, forced fixings, shares, best scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.runtime.tensors import Tensor, torch


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
