"""What moves in a refit, as one flat vector: survivors of masked layers, their biases, and normalisations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from cbs.network.eligible import masked

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)
"""Normalisations whose weight and bias, the affine part, move."""


@dataclass(frozen=True)
class Part:
    """The entries of one parameter that move.

    Attributes:
        name: of the parameter in a network without masks, such as `fc1.weight`.
        index: `[count]` of the entries in the flattened parameter, ascending.
        start: of them in the vector.
        count: how many.
    """

    name: str
    index: Tensor
    start: int
    count: int

    @property
    def place(self) -> slice:
        """Of them in the vector."""
        return slice(self.start, self.start + self.count)


@dataclass(frozen=True)
class Movable:
    """All that moves, a vector of length `count`.

    Attributes:
        parts: by parameter.
        base: the parameters that have parts, with their present values, by name; contiguous.
    """

    parts: tuple[Part, ...]
    base: Mapping[str, Tensor]

    @property
    def count(self) -> int:
        """Length of the vector."""
        return sum(part.count for part in self.parts)

    def vector(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Entries of tensors that have the parameters' names and shapes, as a vector in double precision."""
        if not self.parts:
            return torch.zeros(0, dtype=torch.float64)
        return torch.cat([tensors[p.name].detach().reshape(-1)[p.index].double() for p in self.parts])

    def tangents(self, vector: Tensor) -> dict[str, Tensor]:
        """Tensors of the parameters' shapes and types with the vector's entries, and zeros elsewhere."""
        return {
            part.name: self._put(part, torch.zeros_like(self.base[part.name]), vector) for part in self.parts
        }

    def parameters(self, vector: Tensor) -> dict[str, Tensor]:
        """The parameters with the vector's entries in their places, by name."""
        return {part.name: self._put(part, self.base[part.name].clone(), vector) for part in self.parts}

    @staticmethod
    def _put(part: Part, values: Tensor, vector: Tensor) -> Tensor:
        values.view(-1)[part.index] = vector[part.place].to(values.dtype)
        return values


def find_movable(masked_model: nn.Module, plain: nn.Module, layers: Sequence[str] | None = None) -> Movable:
    """What moves in a refit of a masked network.

    These are the entries that masks leave of the weights of the layers, their biases unless these have a mask
    of their own, and the affine parts of all normalisations without masks. Parameters that are used twice are
    there once.

    Args:
        masked_model: with masks in `torch.nn.utils.prune` form.
        plain: a copy with masks made permanent, in whose parameters' names and types the vector is.
        layers: names of the masked layers whose survivors move; None for all.

    Raises:
        ValueError: in one line, if a layer is not masked, or nothing would move.
    """
    found = {name: module for name, module in masked_model.named_modules() if "weight" in masked(module)}
    for name in layers or ():
        if name not in found:
            raise ValueError(f"layers: {name!r} has no mask of its weight (torch.nn.utils.prune); there are "
                             f"{', '.join(map(repr, found)) or 'none'}")  # fmt: skip
    chosen = found if layers is None else {name: found[name] for name in layers}
    if not chosen:
        raise ValueError("model has no masks in torch.nn.utils.prune form; prune it first, as cbs.prune does")
    own = dict(plain.named_parameters())  # once each, however often they are used
    base: dict[str, Tensor] = {}
    parts: list[Part] = []
    start = 0

    def add(name: str, keep: Tensor | None = None) -> None:
        nonlocal start
        if name not in own or name in base:
            return
        values = own[name].detach()
        if keep is None:
            index = torch.arange(values.numel(), device=values.device)
        else:
            index = keep.reshape(-1).nonzero()[:, 0].to(values.device)
        if len(index):
            base[name] = values.clone(memory_format=torch.contiguous_format)
            parts.append(Part(name, index, start, len(index)))
            start += len(index)

    for name, module in masked_model.named_modules():
        dot = f"{name}." if name else ""
        if name in chosen:
            add(f"{dot}weight", module.weight_mask != 0)
            if "bias" not in masked(module):
                add(f"{dot}bias")
        elif isinstance(module, NORMS) and not masked(module):
            add(f"{dot}weight")
            add(f"{dot}bias")
    return Movable(tuple(parts), base)


def whole_movable(model: nn.Module, layers: Sequence[str]) -> Movable:
    """All entries of the weights of some layers of a network without masks."""
    names = [f"{name}.weight" if name else "weight" for name in layers]
    base = {name: model.get_parameter(name).detach().contiguous() for name in names}
    parts: list[Part] = []
    for name, values in base.items():
        start = parts[-1].start + parts[-1].count if parts else 0
        parts.append(Part(name, torch.arange(values.numel(), device=values.device), start, values.numel()))
    return Movable(tuple(parts), base)


@torch.no_grad()
def write_back(masked_model: nn.Module, movable: Movable, vector: Tensor) -> None:
    """Put a vector into the network with masks, in place; masks, and all else, stay.

    Args:
        masked_model: that `movable` was found in.
        movable: what moves.
        vector: its entries.
    """
    for name, values in movable.parameters(vector).items():
        path, _, key = name.rpartition(".")
        module = masked_model.get_submodule(path)
        under = f"{key}_orig" if key in masked(module) else key
        module.get_parameter(under).copy_(values)
        if under != key:
            setattr(module, key, getattr(module, under) * getattr(module, f"{key}_mask"))
