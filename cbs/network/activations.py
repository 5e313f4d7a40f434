"""Batches that fit into memory: what a pass over the data keeps of a sample, and how many so fit at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from cbs.data import Nested, Samples
from cbs.data.nested import pieces
from cbs.memory import limit
from cbs.network.answers import answer
from cbs.network.layers import Layer, visiting

SHARE = 1 / 3
"""Of the memory that is left: what activations may take."""
TRIED = 2
"""Samples on which it is measured."""


def fitting(model: nn.Module, layers: Sequence[Layer], samples: Samples) -> Samples:
    """The samples in batches whose activations fit into a share of the memory that is left.

    Batches stay as they are where they fit already. A single sample is never divided.

    Args:
        model: network in evaluation mode.
        layers: layers of `model`, of whose outputs gradients are taken.
        samples: N inputs.

    Raises:
        ValueError: if what one sample takes is more than all the memory that is left.
    """
    each, left = sample_bytes(model, layers, samples), limit().left
    if each > left:
        raise ValueError(
            f"data: activations of a single sample take {each / 2**30:.2f} GiB of memory, and "
            f"{left / 2**30:.2f} are left of the limit; give `memory` more, or smaller samples"
        )
    count = max(1, int(SHARE * left / max(each, 1.0)))
    return samples if count >= min(samples.batch, len(samples)) else replace(samples, batch=count)


def sample_bytes(model: nn.Module, layers: Sequence[Layer], samples: Samples) -> float:
    """Bytes that a pass with gradients by all layers' outputs takes for each sample, about.

    What autograd saves for the way back, of which parameters are no part, and twice the layers' outputs:
    these and their gradients. Of a network that can't be differentiated all modules' outputs.
    """
    own = {values.untyped_storage().data_ptr() for values in (*model.parameters(), *model.buffers())}
    saved: dict[int, int] = {}
    outputs: list[int] = []
    inputs = largest(samples)
    count = len(inputs)

    def pack(values: Tensor) -> Tensor:
        storage = values.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return values

    def visit(name: str, x: Tensor, y: Tensor) -> Tensor:
        outputs.append(y.numel() * y.element_size())
        return (y if y.requires_grad else y.requires_grad_()).clone()

    try:
        with torch.enable_grad(), saved_tensors_hooks(pack, lambda values: values), visiting(layers, visit):
            kept = answer(model, inputs.clone())  # until all that it needs was counted
        del kept
    except Exception:
        return _module_outputs(model, inputs.clone()) / count
    return (sum(saved.values()) + 2 * sum(outputs)) / count


def largest(samples: Samples) -> Any:
    """A copy of the inputs of a few samples; of several shapes those of the largest, as texts may be long."""

    def size(inputs: Any) -> float:
        tensors = inputs.tensors if isinstance(inputs, Nested) else (inputs,)
        return sum(values.numel() for values in tensors if values is not None) / max(1, len(inputs))

    inputs = max((inputs for inputs, _ in samples.groups()), key=size)
    return next(iter(pieces(inputs, TRIED))).clone()


def _module_outputs(model: nn.Module, inputs: Any) -> float:
    """Bytes of what all modules without parts answer to some inputs; 0 where they can't be run so."""
    total = [0]

    def add(module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor):
            total[0] += output.numel() * output.element_size()

    handles = [m.register_forward_hook(add) for m in model.modules() if not any(m.children())]
    try:
        with torch.no_grad():
            answer(model, inputs)
    except Exception:
        return 0.0
    finally:
        for handle in handles:
            handle.remove()
    return float(total[0])
