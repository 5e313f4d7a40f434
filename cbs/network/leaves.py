"""The parameters that layers' weights lie in: leaves of autograd, each once, for derivatives by them.

A block of a grouped convolution is some rows of its module's weight. Derivatives are taken for the whole
parameter, and then cut up as the layers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from cbs.network.layers import Layer

Opt = TypeVar("Opt", Tensor, Tensor | None)


class Leaves:
    """The weights that some layers lie in, made to require gradients.

    Attributes:
        layers: that were asked for.
        names: of the parameters, in the network.
        tensors: the parameters, in this order.
        owners: for every layer its parameter.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)
        found = {f"{layer.path}.weight" if layer.path else "weight": layer.parameter for layer in layers}
        self.names = [*found]
        self.tensors = [parameter.requires_grad_() for parameter in found.values()]
        self._whole = all(layer.blocks == 1 and not layer.across for layer in layers)
        self._of = [self.names.index(f"{x.path}.weight" if x.path else "weight") for x in layers]
        self.owners = [self.tensors[i] for i in self._of]

    def named(self) -> dict[str, Tensor]:
        """The parameters by name, detached, as `torch.func.functional_call` takes them."""
        return {name: tensor.detach() for name, tensor in zip(self.names, self.tensors, strict=True)}

    def parts(self, found: Sequence[Opt], over: int = 0) -> list[Opt]:
        """What of some tensors is every layer's.

        Args:
            found: a tensor (or None) for every parameter, of its shape behind `over` further dimensions.
            over: how many dimensions come before the parameter's.
        """
        if self._whole:
            return list(found)
        return [
            found[i] if found[i] is None else layer.view(found[i], over)  # type: ignore[arg-type]
            for i, layer in zip(self._of, self.layers, strict=True)
        ]

    def flat(self, found: Sequence[Tensor], over: int = 0) -> Tensor:
        """`parts` flattened layer by layer and row by row: `[..., p]` for p weights of all layers."""
        return torch.cat([part.flatten(over) for part in self.parts(found, over)], dim=over)

    def index(self) -> Tensor:
        """`[p]` where the layers' weights are in the parameters, flattened one after the other."""
        starts = [0, *torch.tensor([tensor.numel() for tensor in self.tensors]).cumsum(0).tolist()]
        every = [
            torch.arange(t.numel()).reshape(t.shape) + s for t, s in zip(self.tensors, starts, strict=False)
        ]
        return self.flat(every)
