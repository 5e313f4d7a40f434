"""The prunable layers of a network, and what flows through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbs.network.eligible import survey

Visit = Callable[[str, Tensor, Tensor], Tensor | None]

CHUNK = 2**21
"""Largest number of unfolded inputs held in double precision; few enough to be quick."""


@dataclass(frozen=True)
class Layer:
    """A `Linear` or `Conv2d` as a matrix of `m` rows (output channels) over `n` inputs.

    A convolution's inputs are the `in_channels * kh * kw` entries of an unfolded patch.

    Attributes:
        name: of the module.
        module: the module itself.
        fixed_bias: whether the bias, if there is one, stays as it is.
    """

    name: str
    module: nn.Linear | nn.Conv2d
    fixed_bias: bool = False

    def of(self, model: nn.Module) -> Layer:
        """The same layer of a copy of the network."""
        return replace(self, module=model.get_submodule(self.name))  # type: ignore[arg-type]

    @property
    def bias(self) -> Tensor | None:
        """The bias, if there is one that may move."""
        return None if self.fixed_bias else self.module.bias

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
        """Inputs `[N, ...]` of the module as rows `[N * positions, n]`, one for every output position.

        An image without a batch is one sample.
        """
        if isinstance(self.module, nn.Linear):
            return x.reshape(-1, x.shape[-1])
        patches = self._patches(x)
        return patches.transpose(1, 2).reshape(-1, patches.shape[1])

    def energy(self, x: Tensor) -> Tensor:
        """Sum of the squares of `unfold(x)`, in double precision."""
        squares = x.double().square()
        if isinstance(self.module, nn.Linear):
            return squares.sum()
        return self._patches(squares.reshape(-1, *x.shape[-2:]).sum(dim=0, keepdim=True)).sum()

    def padded(self, x: Tensor) -> Tensor:
        """Images `[N, C, height, width]`, or one without a batch, as a convolution pads them."""
        c, x = self.module, x.reshape(-1, *x.shape[-3:])
        assert isinstance(c, nn.Conv2d)
        mode = "constant" if c.padding_mode == "zeros" else c.padding_mode
        return F.pad(x, c._reversed_padding_repeated_twice, mode=mode)

    def _patches(self, x: Tensor) -> Tensor:
        """Patches of a convolution's inputs, `[N, channels * kh * kw, positions]`."""
        c = self.module
        assert isinstance(c, nn.Conv2d)
        return F.unfold(self.padded(x), c.kernel_size, c.dilation, 0, c.stride)

    def augmented(self, x: Tensor) -> Tensor:
        """`unfold(x)` in double precision, with a last column of ones when there is a bias that may move."""
        X = self.unfold(x.double())
        return X if self.bias is None else F.pad(X, (0, 1), value=1.0)

    def split(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Inputs a few samples at a time; `y` is the module's output, which tells how many."""
        x = x.reshape(-1, *x.shape[1 - self.module.weight.ndim :])
        entries = max(1, y.numel() // self.shape[0] * self.shape[1] // max(1, len(x)))
        yield from torch.split(x, max(1, CHUNK // entries))

    def parts(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """`augmented(x)` a few samples at a time, as `split` has them."""
        for part in self.split(x, y):
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
        names: their names; by default every `Linear` and ungrouped `Conv2d` that is understood.

    Raises:
        ValueError: if there are none, a name is not that of a prunable layer, a layer's weight is computed
            or shared with another layer's, or a weight is not finite.
    """
    return named_layers(model, survey(model).choose(names))


def named_layers(model: nn.Module, names: Sequence[str]) -> list[Layer]:
    """Layers by name, of a network that was surveyed.

    Raises:
        ValueError: if a weight is not finite.
    """
    layers = [Layer(name, model.get_submodule(name)) for name in names]  # type: ignore[arg-type]
    for layer in layers:
        for parameter in (layer.module.weight, layer.module.bias):
            if parameter is not None and not bool(torch.isfinite(parameter).all()):
                raise ValueError(
                    f"layer {layer.name!r} has a NaN or infinite weight; every weight must be finite"
                )
    return layers


def never_ran(name: str) -> ValueError:
    """The error to raise for a layer that a pass over the data did not reach."""
    return ValueError(
        f"layer {name!r} saw no input of this data: it did not run as a module (is only its weight used, by "
        "a function or a compiled model?); leave it out with `layers`"
    )


@contextmanager
def visiting(layers: Sequence[Layer], visit: Visit) -> Iterator[None]:
    """Call `visit(name, input, output)` whenever a layer runs; a tensor it returns replaces the output."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Tensor], Tensor | None]:
        return lambda module, args, kwargs, output: visit(name, args[0] if args else kwargs["input"], output)

    handles = [layer.module.register_forward_hook(hook(layer.name), with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
