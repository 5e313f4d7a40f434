"""Multiplications and bytes: what a network costs whatever the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from cbs.deploy.batch import Batch, call


@dataclass(frozen=True)
class Count:
    """For one sample.

    Attributes:
        all: multiplications of matrix products and convolutions.
        needed: those of them by weights of linear layers and convolutions that are not zero.
    """

    all: int
    needed: int


def multiplications(model: nn.Module, batch: Batch) -> Count:
    """Multiplications for one sample, by running a network on one.

    All are counted that PyTorch's counter of operations knows: matrix products, convolutions, attention. What
    needs none are the zeros of linear layers and convolutions.
    """
    from torch.utils.flop_counter import FlopCounterMode

    idle = 0

    def look(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        nonlocal idle
        x = args[0] if args else kwargs.get("input")
        if isinstance(output, Tensor) and isinstance(x, Tensor):
            zeros = int((module.weight == 0).sum())
            idle += zeros * _places(module, x, output)

    layers = [m for m in model.modules() if type(m) is nn.Linear or isinstance(m, _ConvNd)]
    handles = [layer.register_forward_hook(look, with_kwargs=True) for layer in layers]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call(model, batch[:1])
    finally:
        for handle in handles:
            handle.remove()
    whole = counter.get_total_flops() // 2
    return Count(whole, max(0, whole - idle))


def memory(model: nn.Module) -> int:
    """Bytes of everything that a network keeps to compute with: parameters, buffers and compiled programs."""
    from cbs.deploy.sparse import Compiled

    tensors = {tensor.data_ptr(): tensor for tensor in _tensors(model) if tensor.numel()}
    plain = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return plain + sum(part.program.bytes for part in model.modules() if isinstance(part, Compiled))


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _places(module: Any, x: Tensor, output: Tensor) -> int:
    """How often a layer's every weight multiplies."""
    if isinstance(module, _ConvTransposeNd):
        return x.numel() // module.in_channels
    rows = module.out_channels if isinstance(module, _ConvNd) else module.out_features
    return output.numel() // rows
