"""A pruned network's architecture to be trained from scratch: with fresh weights, or those it began with.

Whether what a pruned network knows is in its weights, or in its architecture alone, is told by training that
architecture anew: from random weights (Liu et al., "Rethinking the value of network pruning", 2019), or from
those that the dense network began with (the lottery ticket of Frankle and Carbin, 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from cbs.data import first_line
from cbs.names import check_name
from cbs.network.eligible import masked_names
from cbs.network.shrink import shrink
from cbs.network.surgery import clone, put_mask, read_masks
from cbs.result import PruneResult

HOW = ("random", "original")


def from_scratch(
    result: PruneResult,
    how: str = "random",
    *,
    initial: nn.Module | Mapping[str, Any] | None = None,
    seed: int = 0,
) -> nn.Module:
    """The pruned architecture with other weights, to be trained by `cbs.train`.

    Masks are those of the result. Where neurons were pruned and can all be taken out, the network is the
    smaller one of `result.permanent()`.

    Args:
        result: of a pruning.
        how: `random`: every module draws its weights anew, by its own `reset_parameters`, as if it had no
            mask; or `original`: those that are given as `initial`.
        initial: the dense network before it was trained, or its state dict; for `original` only.
        seed: of what is drawn.

    Raises:
        ValueError: in one line, for a module that can't draw its weights anew, weights of another network, or
            a seed that is none.
    """
    if not isinstance(result, PruneResult):
        raise ValueError(f"result must be what cbs.prune gives, not {type(result).__name__}")
    check_name("how", how, HOW)
    if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed must be a whole number >= 0, got {seed!r}")
    if (how == "original") != (initial is not None):
        need = "a model or state dict as initial" if how == "original" else "no initial: it draws its weights"
        raise ValueError(f"how {how!r} takes {need}")
    smaller = bool(result.neurons) and all(group.stays is None for group in result.neurons)
    masks = {name: read_masks(result.model, name) for name in masked_names(result.model)}
    if initial is not None:
        model = _with(clone(result.model), initial)
        _mask(model, masks)
        return shrink(model, result.neurons) if smaller else model
    model = shrink(result.model, result.neurons) if smaller else clone(result.model)
    _draw(model, seed)
    if not smaller:
        _mask(model, masks)
    return model


def _with(model: nn.Module, initial: nn.Module | Mapping[str, Any]) -> nn.Module:
    """The model with the weights of a network or a state dict, in place."""
    state = clone(initial).state_dict() if isinstance(initial, nn.Module) else initial
    if not isinstance(state, Mapping):
        raise ValueError(f"initial must be a model or a state dict, not {type(state).__name__}")
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        why = lines[1].strip() if len(lines) > 1 else first_line(error)
        raise ValueError(f"initial is of another network than the result's ({why})") from None
    return model


def _mask(model: nn.Module, masks: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Put masks into a network, in place; what they prune is zero behind them, too."""
    for parameter, by_layer in masks.items():
        for name, mask in by_layer.items():
            module = model.get_submodule(name)
            with torch.no_grad():
                module.get_parameter(parameter).masked_fill_(
                    mask.to(module.get_parameter(parameter).device), 0
                )
            put_mask(module, parameter, mask)


def _draw(model: nn.Module, seed: int) -> None:
    """Have every module of a network draw its weights anew, in place.

    Raises:
        ValueError: naming the module that can't.
    """
    for name, module in model.named_modules():
        own = [*module._parameters, *module._buffers]
        if own and not callable(getattr(module, "reset_parameters", None)):
            raise ValueError(
                f"module {name or 'model'!r} ({type(module).__name__}) holds {own[0]!r} and has no "
                "reset_parameters(); give it one, or how='original' and the weights that it began with"
            )
    devices = {p.device for p in model.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices=list(devices)), torch.no_grad():
        torch.manual_seed(int(seed))
        for module in model.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
