"""Masks held while a network is trained, in any loop and by any optimizer of PyTorch.

A mask of `torch.nn.utils.prune` multiplies a weight on its way into the layer, and so keeps what it has
pruned out of the outputs and out of the gradients. It does not keep it out of the parameter behind it,
`weight_orig`, which weight decay, a momentum from before or an optimizer that mixes entries still move. What
watches the optimizer's steps here does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from cbs.network.eligible import masked, unwrap
from cbs.network.surgery import place_of

Pruned = list[tuple[nn.Parameter, Tensor]]
"""Parameters, each with a bool tensor of its shape, True where pruned."""


class KeptMasks:
    """Holds a network's masks through an optimizer's steps until `remove()`; also a context manager.

    Before every step the gradients become zero where a mask has pruned, and after it the parameters
    (`weight_orig` too) and all that the optimizer keeps of their shape: momentum, the moments of Adam.
    `weight` is then the product of `weight_orig` and its mask again, without history, so that the network can
    be copied by `copy.deepcopy` between steps. Masks are read from the network at every step: those that come
    later are held as well, and of parameters that come by `add_param_group`.

    Args:
        model: the network.
        optimizer: of its parameters.
        masks: `(parameter, mask)` of parameters without a mask in the network.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, masks: Iterable[Any] = ()) -> None:
        self._model, self._optimizer, self._masks = model, optimizer, list(masks)
        self._handles: list[Any] = [
            optimizer.register_step_pre_hook(lambda *_: self._hold_gradients()),
            optimizer.register_step_post_hook(lambda *_: self.hold()),
            *(p.register_hook(_holding(mask)) for p, mask in self._masks if p.requires_grad),
        ]
        self.hold()

    def __enter__(self) -> KeptMasks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        pruned = self._pruned()
        count, of = sum(int(mask.sum()) for _, mask in pruned), sum(mask.numel() for _, mask in pruned)
        return f"KeptMasks: {count} of {of} weights in {len(pruned)} parameters stay zero"

    def remove(self) -> None:
        """Hold the masks no longer. Masks in the network stay there."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @torch.no_grad()
    def hold(self) -> None:
        """Make zero what the masks prune, as after a step: in parameters and in what the optimizer keeps."""
        for parameter, mask in self._pruned():
            parameter.masked_fill_(mask, 0)
            for kept in self._optimizer.state.get(parameter, {}).values():
                if isinstance(kept, Tensor) and kept.shape == parameter.shape:
                    kept.masked_fill_(mask.to(kept.device), 0)
        refresh(self._model)

    @torch.no_grad()
    def _hold_gradients(self) -> None:
        for parameter, mask in self._pruned():
            if parameter.grad is not None:
                parameter.grad.masked_fill_(mask, 0)

    def _pruned(self) -> Pruned:
        given = [(parameter, mask.to(parameter.device)) for parameter, mask in self._masks]
        return [*masked_parameters(self._model), *given]


def keep_masks(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    masks: Mapping[str, Tensor] | None = None,
) -> KeptMasks:
    """Hold a network's masks through every step of an optimizer, in a training loop of one's own.

    What a mask has pruned stays exactly zero: in the parameter behind it, in the gradients at a step, in
    momentum and the moments of Adam, under weight decay. It works with gradient accumulation, closures
    (LBFGS), `torch.amp.GradScaler`, learning-rate schedulers, `foreach` and fused optimizers, parameter
    groups added later, and `DistributedDataParallel` (each process calls it, before the model is wrapped or
    after). Masks that are put on later, and states that are loaded later, of the network or of the optimizer,
    are held from the next step on. A copy by `copy.deepcopy` has its masks, but is not held: its optimizer
    wants a call of its own.

        optimizer = torch.optim.SGD(result.model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        with cbs.keep_masks(result.model, optimizer):
            ...  # any loop

    A parameter that several modules share is held at zero where all of them prune it; what only one of them
    prunes stays out of that one through its mask, and lives on in the others.

    Args:
        model: the network, with masks of `torch.nn.utils.prune`, as `PruneResult.model` is; or of plain
            weights, with `masks`. It may be wrapped, as by `DistributedDataParallel` or `torch.compile`.
        optimizer: of its parameters.
        masks: for names of modules a bool tensor of the weight's shape, True where pruned, as
            `PruneResult.masks`; for weights that are zero there, as `PruneResult.permanent` leaves them.

    Returns:
        A handle, which ends it by `.remove()`, or as a context manager behind the block.

    Raises:
        ValueError: in one line, for a network without masks, an optimizer of other parameters, or masks that
            are not of these weights.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"optimizer must be a torch.optim.Optimizer, not {type(optimizer).__name__}")
    given = [] if masks is None else _given(model, masks)
    pruned = [*masked_parameters(model), *given]
    if not pruned:
        raise ValueError(
            "model has no masks of torch.nn.utils.prune; give the model of a result, or masks=result.masks "
            "for weights made permanent"
        )
    own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(parameter) in own for parameter, _ in pruned):
        raise ValueError(
            "optimizer holds none of the parameters that are masked; make it of this model's parameters, "
            f"torch.optim.{type(optimizer).__name__}(model.parameters(), ...), after pruning"
        )
    return KeptMasks(model, optimizer, given)


def masked_parameters(model: nn.Module) -> Pruned:
    """The parameters behind masks, `weight_orig` and so on, with what of them is pruned.

    What modules that share a parameter do not all prune is not pruned.
    """
    masks: dict[int, tuple[nn.Parameter, Tensor]] = {}
    users: dict[int, int] = defaultdict(int)
    prunes: dict[int, int] = defaultdict(int)
    for module in model.modules():
        for parameter in module._parameters.values():
            users[id(parameter)] += 1
        for name in masked(module):
            parameter, mask = getattr(module, f"{name}_orig"), getattr(module, f"{name}_mask") == 0
            prunes[id(parameter)] += 1
            _, before = masks.get(id(parameter), (parameter, mask))
            masks[id(parameter)] = parameter, mask & before
    return [pair for key, pair in masks.items() if prunes[key] == users[key]]


def clear(model: nn.Module) -> None:
    """Make what masks prune zero in the parameters behind them, in place, whatever else moved it."""
    with torch.no_grad():
        for parameter, mask in masked_parameters(model):
            parameter.masked_fill_(mask, 0)


@torch.no_grad()
def refresh(model: nn.Module) -> None:
    """Make `weight` the product of `weight_orig` and its mask again, in place, wherever there are masks."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, torch_prune.BasePruningMethod):
                hook(module, None)


def _holding(mask: Tensor) -> Any:
    return lambda gradient: gradient.masked_fill(mask.to(gradient.device), 0)


def _given(model: nn.Module, masks: Mapping[str, Tensor]) -> Pruned:
    """The parameters that masks are given for, each with its mask.

    Raises:
        ValueError: in one line, for masks that are not of these weights.
    """
    if not isinstance(masks, Mapping):
        raise ValueError(f"masks must be a mapping of modules' names, not {type(masks).__name__}")
    modules = dict(unwrap(model).named_modules())
    found: dict[int, tuple[nn.Parameter, Tensor]] = {}
    for name, mask in masks.items():
        path, key = place_of(unwrap(model), name)
        own = {} if path not in modules else modules[path]._parameters
        weight = own.get(f"{key}_orig", own.get(key))
        if weight is None:
            raise ValueError(f"masks: model has no module {name!r} with a weight, and no such parameter")
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"masks: that of {name!r} is {kind}; give a bool tensor, True where pruned")
        if mask.shape != weight.shape:
            raise ValueError(
                f"masks: that of {name!r} is of shape {list(mask.shape)}, its weight of {list(weight.shape)}"
            )
        mask = mask.to(weight.device)
        if count := int(weight.detach()[mask].count_nonzero()):
            raise ValueError(
                f"masks: {count} weights of {name!r} are not zero where its mask prunes (True); give the "
                "masks of this network, or make them zero first"
            )
        _, before = found.get(id(weight), (weight, mask))
        found[id(weight)] = weight, mask | before  # both are zero in the one weight that there is
    return [*found.values()]
