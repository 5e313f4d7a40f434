"""The fine-tuning of a stage: after its pruning and refit, in place, with its masks held."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from cbs.handing import take_back, theirs
from cbs.history import Stage
from cbs.network.eligible import masked_names
from cbs.network.evaluate import evaluate
from cbs.network.network import Network
from cbs.network.surgery import read_masks
from cbs.schedule.masks import clear, refresh
from cbs.schedule.training import Epoch, train
from cbs.watch import Callback, Step, Watch
from solvers.control import interruptible

if TYPE_CHECKING:
    from cbs.data import Samples
    from cbs.request import Request


def tuned(
    model: nn.Module,
    stage: Stage,
    network: Network,
    request: Request,
    training: Samples,
    number: int,
    until: float,
    watch: Watch,
    callback: Callback | None,
) -> Stage:
    """Fine-tune a stage's network in place: the stage with what that did.

    Ctrl-C leaves whole epochs, and of a function of the user's nothing; the watch is then interrupted.
    """
    began, epochs = time.perf_counter(), 0
    if began >= until:
        return stage
    where = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    model.to(network.device)
    whole_model, model = model, theirs(model)
    masks, state = _all_masks(model), copy.deepcopy(model.state_dict())

    def heard(epoch: Epoch) -> bool:
        nonlocal epochs
        epochs = epoch.index + 1
        step = Step(stage.method["name"], "finetune", index=epochs, count=epoch.count)
        if callback is not None and callback(step):
            watch.control.interrupted = True
        return watch.interrupted or time.perf_counter() >= until

    own, whole = callable(request.finetune), True
    try:
        if own:
            request.finetune(model, number)  # type: ignore[operator, misc]
        else:
            asked = request.finetune
            options = dict(asked) if isinstance(asked, Mapping) else {"epochs": int(asked)}  # type: ignore[arg-type]
            train(model, training, loss=network.loss, seed=request.seed, callback=heard, **options)
    except KeyboardInterrupt:
        watch.control.interrupted = True
        whole = not own and epochs > 0
        if own:
            model.load_state_dict(state)
    _require_kept(model, masks, state)
    clear(model)
    take_back(whole_model, model, network)
    model = whole_model
    spent = time.perf_counter() - began
    refresh(model)
    stage = replace(
        stage, seconds=stage.seconds + spent, tuning_seconds=spent, epochs=None if own else epochs
    )
    if whole:
        with interruptible(watch.control):
            found = evaluate(model, network.samples, network.loss)
            held_out = network.held_out
            test = None if held_out is None else evaluate(model, held_out, network.loss)
        stage = replace(stage, tuned=found, test_tuned=test)
    for module, mode in modes.items():
        module.training = mode
    model.to(where)
    refresh(model)
    return stage


def _require_kept(
    model: nn.Module, masks: dict[str, torch.Tensor], state: Mapping[str, torch.Tensor]
) -> None:
    """Refuse a fine-tuning that took masks off, made another network, or left what is not finite.

    Raises:
        ValueError: naming the layer.
    """
    found = _all_masks(model)
    for name, mask in masks.items():
        if name not in found or not torch.equal(found[name].cpu(), mask.cpu()):
            raise ValueError(
                f"finetune changed the mask of layer {name!r}; train the model in place and leave its masks "
                "(torch.nn.utils.prune) as they are"
            )
    now = model.state_dict()
    for name in [*dict.fromkeys((*state, *now))]:
        was, found_as = (_form(tensors.get(name)) for tensors in (state, now))
        if was != found_as:
            raise ValueError(
                f"finetune changed the network: {name!r} was {was} and is {found_as}; train the model in "
                "place and leave its modules and types as they are"
            )
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"finetune left NaN or infinite values in {name!r}; try a smaller learning rate")


def _all_masks(model: nn.Module) -> dict[str, torch.Tensor]:
    """The masks of a network, a weight's by its module's name and others by the parameter's."""
    return {
        path if parameter == "weight" else f"{path}.{parameter}": mask
        for parameter in masked_names(model)
        for path, mask in read_masks(model, parameter).items()
    }


def _form(values: torch.Tensor | None) -> str:
    """Shape and type of a tensor of a state dict, in words."""
    if not isinstance(values, torch.Tensor):
        return "not there" if values is None else "no tensor"
    return f"{list(values.shape)} of {values.dtype}"
