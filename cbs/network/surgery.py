"""Masks and weights into a network's modules, out of them, and back."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune
from torch.overrides import TorchFunctionMode

from cbs.change import Change, Weights
from cbs.data import first_line
from cbs.network.eligible import masked
from cbs.network.layers import Layer
from solvers.problem import Mask

Saved = Mapping[str, tuple[Tensor, Tensor | None]]
"""Weight and bias of every layer's module by name."""


class _WithoutHistory(TorchFunctionMode):
    """`deepcopy` of tensors that autograd or inference mode left behind too, and without gradients."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            if not tensor.is_leaf or tensor.is_inference() or tensor.grad is not None:
                if id(tensor) not in memo:
                    twin = tensor.detach().clone().requires_grad_(tensor.is_leaf and tensor.requires_grad)
                    memo[id(tensor)] = twin
                return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def clone(model: nn.Module) -> nn.Module:
    """A deep copy, of a network with masks too; masks already there are made permanent in the copy.

    Tensors that a module keeps of a forward pass, wherever in its attributes, are copied without their
    history; gradients are not copied.

    Raises:
        ValueError: if the model holds what can't be copied, such as a lock or a generator.
    """
    return make_permanent(copied(model))


def copied(model: nn.Module) -> nn.Module:
    """A deep copy with its masks; see `clone`.

    Raises:
        ValueError: if the model holds what can't be copied.
    """
    try:
        with _WithoutHistory():
            return copy.deepcopy(model)
    except Exception as error:
        raise ValueError(
            f"model {type(model).__name__} can't be copied ({first_line(error)}); "
            "take what copy.deepcopy refuses out of its attributes"
        ) from error


def write(layer: Layer, weights: Weights) -> None:
    """Write parameters into a layer without masks, in place.

    Raises:
        ValueError: if they are too large for the layer's type.
    """
    for parameter, values in ((layer.weight, weights.W), (layer.bias, weights.bias)):
        if parameter is not None and values is not None:
            with torch.no_grad():
                parameter.detach().copy_(torch.from_numpy(values).reshape(parameter.shape))
            if not bool(torch.isfinite(parameter).all()):
                raise ValueError(
                    f"layer {layer.name!r}: weights after pruning reach {np.abs(values).max():.3g}, "
                    f"too large for {parameter.dtype}; prune the model in float32"
                )


def apply(layers: Sequence[Layer], changes: Sequence[Change]) -> None:
    """Write changes into layers, in place: the weights, the bias, and a `torch.nn.utils.prune` mask.

    The modules then hold `weight_orig` (the new weights) and `weight_mask` (0 where pruned), and
    `weight` is their product.
    """
    pruned: dict[str, tuple[Layer, Tensor]] = {}
    for layer, change in zip(layers, changes, strict=True):
        write(layer, change.weights)
        shape = layer.parameter.shape
        _, mask = pruned.setdefault(layer.path, (layer, torch.zeros(shape, dtype=torch.bool)))
        layer.view(mask).copy_(torch.from_numpy(change.mask).reshape(layer.weight.shape))
    for layer, mask in pruned.values():
        put_mask(layer.module, "weight", mask)


def put_mask(module: nn.Module, name: str, pruned: Tensor) -> None:
    """Mask one of a module's parameters, in place; `pruned` is a bool tensor, True where pruned.

    Where the parameter stood among the module's there is then the one that `torch.nn.utils.prune` masks.
    """
    order = [f"{name}_orig" if key == name else key for key in module._parameters]
    keep = torch.ones_like(module.get_parameter(name), requires_grad=False)
    keep.masked_fill_(pruned.to(keep.device), 0)
    torch_prune.custom_from_mask(module, name, keep)  # type: ignore[no-untyped-call]
    _arrange(module, order)


def revive(model: nn.Module, state: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a dense network as it was pruned before.

    Args:
        model: the dense network.
        state: the pruned network's, with plain weights.
        masks: by the names that `PruneResult.masks` has, True where pruned.

    Raises:
        ValueError: if they are another network's.
    """
    pruned = clone(model)
    try:
        pruned.load_state_dict(dict(state))
        for name, mask in masks.items():
            path, parameter = place_of(pruned, name)
            put_mask(pruned.get_submodule(path), parameter, mask)
    except (RuntimeError, AttributeError, AssertionError) as error:
        raise ValueError(f"weights and masks are another network's ({first_line(error)})") from None
    return pruned


def place_of(model: nn.Module, name: str) -> tuple[str, str]:
    """The module and its parameter that a key of `PruneResult.masks` names."""
    path, _, key = name.rpartition(".")
    modules = dict(model.named_modules())
    own = modules.get(name)
    if own is not None and ("weight" in own._parameters or "weight_orig" in own._parameters):
        return name, "weight"
    return path, key


def zero(weight: Tensor, dense: Tensor, mask: Mask) -> None:
    """Make `weight` the dense one with zeros where pruned, in place; `mask [m, n]`."""
    with torch.no_grad():
        weight = weight.detach()
        weight.copy_(dense)
        weight.masked_fill_(torch.from_numpy(mask).reshape(weight.shape).to(weight.device), 0.0)


def read_masks(model: nn.Module, name: str = "weight") -> dict[str, Tensor]:
    """The masks in a network's modules: for every pruned module's name a bool tensor, True where pruned.

    Args:
        model: with masks in `torch.nn.utils.prune` form.
        name: of the parameter whose masks are wanted.
    """
    found = model.named_modules()
    return {key: getattr(module, f"{name}_mask") == 0 for key, module in found if name in masked(module)}


def masked_share(model: nn.Module) -> float:
    """The share of all parameters of a network, each once, that its masks prune."""
    gone: dict[int, int] = {}
    for module in model.modules():
        for name in masked(module):
            mask = getattr(module, f"{name}_mask")
            gone[id(getattr(module, f"{name}_orig"))] = int((mask == 0).sum())
    return sum(gone.values()) / max(1, sum(parameter.numel() for parameter in model.parameters()))


def make_permanent(model: nn.Module) -> nn.Module:
    """Drop the masks, in place, and leave plain parameters with zeros where they were pruned.

    A parameter comes back where the masked one stood, or before the bias: where it was without a mask.
    """
    for module in [*model.modules()]:
        for name in masked(module):
            order = [name if key == f"{name}_orig" else key for key in module._parameters]
            torch_prune.remove(module, name)  # type: ignore[no-untyped-call]
            _arrange(module, order)
            _arrange(
                module, [key for key in ("weight", "bias") if key in order and name in ("weight", "bias")]
            )
    return model


def _arrange(module: nn.Module, order: Sequence[str]) -> None:
    """Put some of a module's parameters into an order, on the places that they take together."""
    found, wanted = module._parameters, iter(order)
    arranged = [next(wanted) if key in order else key for key in found]
    module._parameters = {key: found[key] for key in arranged}


def save(layers: Sequence[Layer]) -> Saved:
    """Copies of the layers' weights and biases, to be put back by `undo`."""
    saved = {}
    for layer in layers:
        b = None if layer.fixed_bias else getattr(layer.module, "bias", None)
        if layer.path not in saved:
            saved[layer.path] = layer.parameter.detach().clone(), None if b is None else b.detach().clone()
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
