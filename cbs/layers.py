"""The prunable layers of a network, and what flows through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Visit = Callable[[str, Tensor, Tensor], Tensor | None]

CHUNK = 2**25
"""Largest number of unfolded inputs held in double precision."""


@dataclass(frozen=True)
class Layer:
    """A `Linear` or `Conv2d` as a matrix of `m` rows (output channels) over `n` inputs.

    A convolution's inputs are the `in_channels * kh * kw` entries of an unfolded patch.
    """

    name: str
    module: nn.Linear | nn.Conv2d

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        W = self.module.weight
        return W.shape[0], W[0].numel()

    @property
    def size(self) -> int:
        """Number of weights, `m * n`."""
        return self.module.weight.numel()

    def unfold(self, x: Tensor) -> Tensor:
        """Inputs `[N, ...]` of the module as rows `[N * positions, n]`, one for every output position."""
        if isinstance(self.module, nn.Linear):
            return x.reshape(-1, x.shape[-1])
        c = self.module
        mode = "constant" if c.padding_mode == "zeros" else c.padding_mode
        x = F.pad(x, c._reversed_padding_repeated_twice, mode=mode)
        patches = F.unfold(x, c.kernel_size, c.dilation, 0, c.stride)
        return patches.transpose(1, 2).reshape(-1, patches.shape[1])

    def augmented(self, x: Tensor) -> Tensor:
        """`unfold(x)` in double precision, with a last column of ones when there is a bias."""
        X = self.unfold(x).double()
        return X if self.module.bias is None else F.pad(X, (0, 1), value=1.0)

    def parts(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """`augmented(x)` a few samples at a time; `y` is the module's output, which tells how many."""
        entries = max(1, y.numel() // self.shape[0] * self.shape[1] // max(1, len(x)))
        for part in torch.split(x, max(1, CHUNK // entries)):
            yield self.augmented(part)

    def flatten(self, y: Tensor) -> Tensor:
        """Outputs of the module as rows `[N * positions, m]`, in the order of `unfold`."""
        if isinstance(self.module, nn.Conv2d):
            y = y.movedim(-3, -1)
        return y.reshape(-1, y.shape[-1])


def find_layers(model: nn.Module, names: Sequence[str] | None = None) -> list[Layer]:
    """The layers to prune, in the order of `model.named_modules()`.

    Args:
        model: any module.
        names: their names; by default every `Linear` and every `Conv2d` that is not grouped.

    Raises:
        ValueError: if there are none, a name is not that of a prunable layer, two layers share a
            weight, or a weight is not finite.
    """
    found = {name: Layer(name, module) for name, module in model.named_modules() if _prunable(module)}
    if not found:
        raise ValueError(
            f"model {type(model).__name__} has no prunable layer: no Linear and no ungrouped Conv2d"
        )
    if names is not None:
        unknown = [name for name in names if name not in found]
        if unknown or not names:
            wrong = repr(unknown[0]) if unknown else "an empty list"
            raise ValueError(f"layers: {wrong} names no prunable layer; there are {', '.join(found)}")
        found = {name: layer for name, layer in found.items() if name in names}
    seen: dict[int, str] = {}
    for name, layer in found.items():
        W, b = layer.module.weight, layer.module.bias
        if not bool(torch.isfinite(W).all()) or not (b is None or bool(torch.isfinite(b).all())):
            raise ValueError(f"layer {name!r} has a NaN or infinite weight; every weight must be finite")
        first = seen.setdefault(id(W), name)
        if first != name:
            raise ValueError(f"layers {first!r} and {name!r} share one weight; leave one out with `layers`")
    return list(found.values())


def _prunable(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


@contextmanager
def visiting(layers: Sequence[Layer], visit: Visit) -> Iterator[None]:
    """Call `visit(name, input, output)` whenever a layer runs; a tensor it returns replaces the output."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]:
        return lambda module, args, output: visit(name, args[0], output)

    handles = [layer.module.register_forward_hook(hook(layer.name)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
