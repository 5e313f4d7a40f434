"""Pseudo-costs of many blocks as tensors: what fixing an entry lifted the bound by, per share moved."""

from __future__ import annotations

from solvers.runtime.tensors import Tensor, torch

PRIOR = 0.05
"""Of the mean rate of a block, counted as a squared share moved."""


class Costs:
    """Least-squares rates of every entry of F blocks, pruned and kept (Benichou et al. 1971).

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
