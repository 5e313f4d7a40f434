"""The decisions of a re-selection as one flat vector: weights to keep or prune, and what only moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cbs.network.eligible import masked
from cbs.refit.movable import NORMS, Movable, Part


@dataclass(frozen=True)
class Space:
    """All weights that earlier masks leave, and biases and normalisations, which only move.

    Attributes:
        movable: of which parameter every entry is.
        labels: `[count]` pool of every weight; -1 where an entry only moves.
        keep: `[pools]` how many weights of every pool are to be kept.
    """

    movable: Movable
    labels: Tensor
    keep: Tensor

    @property
    def prunable(self) -> Tensor:
        """`[count]`, True for weights."""
        return self.labels >= 0

    def counts(self, kept: Tensor) -> Tensor:
        """`[pools]` how many weights of every pool a set, `[count]`, has."""
        return torch.bincount(self.labels[kept & self.prunable], minlength=len(self.keep))

    def part(self, chosen: Tensor) -> Movable:
        """Only some entries, `[count]` True where they are, in the same order."""
        parts, start = [], 0
        for part in self.movable.parts:
            index = part.index[chosen[part.place]]
            if len(index):
                parts.append(Part(part.name, index, start, len(index)))
                start += len(index)
        names = {part.name for part in parts}
        base = {name: values for name, values in self.movable.base.items() if name in names}
        return Movable(tuple(parts), base)

    def at(self, vector: Tensor, chosen: Tensor) -> Movable:
        """`part`, of a network whose other entries are those of a vector."""
        found = self.part(chosen)
        now = self.movable.parameters(vector)
        return replace(found, base={name: now[name] for name in found.base})


def find_space(
    model: nn.Module,
    plain: nn.Module,
    layers: Sequence[str],
    earlier: Mapping[str, Tensor],
    pools: Mapping[str, Tensor],
    keep: Tensor,
) -> tuple[Space, Tensor]:
    """The space of a masked network, and `[count]` what of it is kept at present.

    Args:
        model: with masks in `torch.nn.utils.prune` form.
        plain: a copy with masks made permanent.
        layers: names of the layers that are pruned.
        earlier: for layers that came with masks those, True where pruned; such weights never come back.
        pools: for every layer the pools of its weights, of its weight's shape.
        keep: `[pools]` how many of every pool stay.
    """
    own = dict(plain.named_parameters())
    base: dict[str, Tensor] = {}
    parts: list[Part] = []
    labels: list[Tensor] = []
    kept: list[Tensor] = []

    def add(name: str, index: Tensor, label: Tensor, alive: Tensor) -> None:
        if name not in own or name in base or not len(index):
            return
        base[name] = own[name].detach().clone(memory_format=torch.contiguous_format)
        parts.append(Part(name, index, sum(part.count for part in parts), len(index)))
        labels.append(label)
        kept.append(alive)

    def add_all(name: str) -> None:
        if name in own:
            index = torch.arange(own[name].numel(), device=own[name].device)
            add(name, index, torch.full_like(index, -1), torch.ones_like(index, dtype=torch.bool))

    for name, module in model.named_modules():
        dot = f"{name}." if name else ""
        if name in layers:
            alive = module.get_buffer("weight_mask").reshape(-1) != 0
            open_ = torch.ones_like(alive)
            if name in earlier:
                open_ = ~earlier[name].reshape(-1).to(alive.device)
            index = open_.nonzero()[:, 0]
            add(f"{dot}weight", index, pools[name].reshape(-1).to(alive.device)[index], alive[index])
            if "bias" not in masked(module):
                add_all(f"{dot}bias")
        elif isinstance(module, NORMS) and not masked(module):
            add_all(f"{dot}weight")
            add_all(f"{dot}bias")
    return Space(Movable(tuple(parts), base), torch.cat(labels), keep), torch.cat(kept)
