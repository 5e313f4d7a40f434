"""Masks and weights into a network's modules, out of them, and back."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from cbs.formulation import Pruned, Weights
from cbs.layers import Layer
from solvers.problem import Mask

Saved = Mapping[str, tuple[Tensor, Tensor | None]]
"""Weight and bias of every layer by name."""


def clone(model: nn.Module) -> nn.Module:
    """A deep copy, of a network with masks too; masks already there are made permanent in the copy."""
    memo: dict[int, object] = {}
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and not weight.is_leaf:
            memo[id(weight)] = weight.detach().clone()
    return make_permanent(copy.deepcopy(model, memo))


def write(layer: Layer, weights: Weights) -> None:
    """Write parameters into a layer without masks, in place."""
    module = layer.module
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weights.W).reshape(module.weight.shape))
        if weights.bias is not None and module.bias is not None:
            module.bias.copy_(torch.from_numpy(weights.bias))


def apply(layer: Layer, answer: Pruned) -> None:
    """Write an answer into a layer, in place: the weights, the bias, and a `torch.nn.utils.prune` mask.

    The module then holds `weight_orig` (the new weights) and `weight_mask` (0 where pruned), and
    `weight` is their product.
    """
    module = layer.module
    write(layer, answer.weights)
    keep = torch.from_numpy(~answer.mask).reshape(module.weight.shape)
    torch_prune.custom_from_mask(module, "weight", keep.to(module.weight))  # type: ignore[no-untyped-call]


def zero(weight: Tensor, dense: Tensor, mask: Mask) -> None:
    """Make `weight` the dense one with zeros where pruned, in place; `mask [m, n]`."""
    with torch.no_grad():
        weight.copy_(dense)
        weight.masked_fill_(torch.from_numpy(mask).reshape(weight.shape).to(weight.device), 0.0)


def read_masks(model: nn.Module) -> dict[str, Tensor]:
    """The masks in a network's modules: for every pruned layer's name a bool tensor, True where pruned."""
    return {
        name: module.weight_mask == 0
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight_mask", None), Tensor)
    }


def make_permanent(model: nn.Module) -> nn.Module:
    """Drop the masks, in place, and leave plain weights with zeros where they were pruned."""
    for name in read_masks(model):
        torch_prune.remove(model.get_submodule(name), "weight")  # type: ignore[no-untyped-call]
    return model


def save(layers: Sequence[Layer]) -> Saved:
    """Copies of the layers' weights and biases, to be put back by `undo`."""
    saved = {}
    for layer in layers:
        W, b = layer.module.weight, layer.module.bias
        saved[layer.name] = (W.detach().clone(), None if b is None else b.detach().clone())
    return saved


def undo(model: nn.Module, saved: Saved) -> nn.Module:
    """Put saved weights back, in place, and drop the masks.

    Raises:
        ValueError: if a saved layer is not in the model, or has another shape.
    """
    modules = dict(model.named_modules())
    for name, (W, _) in saved.items():
        weight = getattr(modules.get(name), "weight", None)
        if weight is None or weight.shape != W.shape:
            raise ValueError(f"undo: model has no layer {name!r} with a weight of shape {list(W.shape)}")
    make_permanent(model)
    with torch.no_grad():
        for name, (W, b) in saved.items():
            modules[name].weight.copy_(W)
            if b is not None:
                modules[name].bias.copy_(b)
    return model
