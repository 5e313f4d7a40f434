"""What the modules of a network hold in memory, and what they share: tied weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Held = tuple[nn.Module, str, str, Tensor]
"""A tensor that a module holds: the module, the tensor's name in it and in the network, and itself."""


def memory(model: nn.Module) -> dict[int, list[Held]]:
    """What a network's modules hold, parameters, buffers and attributes, by the storage that it is in."""
    places: dict[int, list[Held]] = defaultdict(list)
    for name, module in model.named_modules():
        for key, tensor in _named_tensors(module):
            if tensor.layout is torch.strided and tensor.numel() and not tensor.is_meta:
                path = f"{name}.{key}" if name else key
                places[tensor.untyped_storage().data_ptr()].append((module, key, path, tensor))
    return places


def shared_with(module: nn.Module, places: Mapping[int, Sequence[Held]]) -> str | None:
    """What outside of a module and its children has memory in common with a parameter of theirs; or None."""
    own = {*module.modules()}
    for parameter in module.parameters():
        for other, _, path, tensor in places.get(parameter.untyped_storage().data_ptr(), ()):
            if other not in own and overlap(parameter, tensor):
                return path
    return None


def overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one storage have memory in common, taken as ranges."""
    (a0, a1), (b0, b1) = ((t.data_ptr(), t.data_ptr() + t.element_size() * (1 + _reach(t))) for t in (a, b))
    return a0 < b1 and b0 < a1


def _reach(t: Tensor) -> int:
    return sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that a module holds, parameter, buffer or in an attribute, with a name."""
    for key, value in [*module._parameters.items(), *module._buffers.items(), *vars(module).items()]:
        if key not in ("_parameters", "_buffers", "_modules"):
            yield from ((key, tensor) for tensor in _tensors(value))


def _tensors(value: Any, depth: int = 4) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple | set | frozenset) and depth:
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item, depth - 1)
