"""Iterative pruning: several prunings of one network, each followed by a network refit and fine-tuning.

A schedule wraps what prunes once and does not enter it: every stage is a pruning of its own, of the network
that the stage before left, with curvatures computed anew. What was pruned before comes as masks, which stay.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from cbs.assemble import Run
from cbs.certify import certify_result
from cbs.earlier import pruned_before
from cbs.network.evaluate import evaluate
from cbs.network.network import Network, Reference
from cbs.network.surgery import clone, put_mask, read_masks
from cbs.references import References
from cbs.refit.network import matching, require_refit
from cbs.result import Stage
from cbs.schedule.masks import clear, refresh
from cbs.schedule.refitting import refitted
from cbs.schedule.training import Epoch, train
from cbs.watch import Callback, Step, Watch

if TYPE_CHECKING:
    from cbs.data import Samples
    from cbs.refit.divergence import Divergence
    from cbs.request import Request

Once = Callable[[Network, "Request", References, Callback | None], Run]
"""Prunes once: a network, as asked, with the bounds known of it, telling a callback."""
SEARCHED = 0.5
"""Of a stage's share of the time limit, what its pruning may take where a refit or fine-tuning follows."""
LEAST = 1e-3
"""Seconds that a stage's pruning has when the time is up: the sparsity is reached all the same."""


def prune_in_stages(
    network: Network,
    request: Request,
    references: References,
    callback: Callback | None,
    once: Once,
    training: Samples,
) -> Run:
    """Prune as the request's schedule says, refit to the dense network's outputs, and fine-tune.

    Ctrl-C ends it with the stage that was pruned last, refitted as far as whole steps go and fine-tuned as
    far as whole epochs go. A time limit is shared out evenly among the stages left; the last stage is reached
    all the same.

    Args:
        network: the dense network.
        request: what is asked.
        references: the bounds known of the dense network; the networks of later stages have others.
        callback: told of every step.
        once: prunes once.
        training: what to fine-tune on.

    Returns:
        The last stage's run, with the whole history. Its bounds are settled, unless it is the only stage and
        its bounds are the dense network's.

    Raises:
        ValueError: in one line, for what a stage refuses, or for a function that does not train in place.
    """
    before = _before(network, request)
    if request.refit == "network":
        require_refit(network, request.match, request.labels)
    fractions = request.schedule.sparsities(before, request.fraction)
    here, known, left = network, references, request.time_limit
    run: Run | None = None
    model: nn.Module | None = None
    history: list[Stage] = []
    try:
        for number, fraction in enumerate(fractions, 1):
            if model is not None:
                here = _network(model, network, request)
                known = References(here)
            last, told = number == len(fractions), _telling(callback, request, number, len(fractions))
            share = None if left is None else max(left, LEAST) / (len(fractions) - number + 1)
            asked = _part(request, fraction, share, last)
            run = once(here, asked, known, told)
            history.append(run.result.history[-1])
            spent = 0.0 if run.watch.left is None else (asked.time_limit or 0.0) - run.watch.left
            if run.watch.interrupted:
                break
            if request.refit == "network":
                began = time.perf_counter()
                until = math.inf if share is None else began + _share(request, share - spent)
                history[-1] = refitted(
                    run.result.model, history[-1], network, request, until, run.watch, told
                )
                spent += time.perf_counter() - began
                if run.watch.interrupted:
                    break
            stays = last or request.schedule.deleted in ("stay", "return")
            model = run.result.model if stays else _freed(run.result.model, here, network, request)
            if request.finetune is not None:
                began = time.perf_counter()
                until = math.inf if share is None else began + share - spent
                history[-1] = _tuned(
                    model, history[-1], network, request, training, number, until, run.watch, told
                )
                spent += time.perf_counter() - began
            left = None if left is None else max(0.0, left - spent)
            if run.watch.interrupted:
                break
            if request.schedule.deleted == "return" and not last:
                model = _freed(run.result.model, here, network, request)
    except KeyboardInterrupt:
        if run is None:
            raise
        run.watch.control.interrupted = True
    assert run is not None
    return _concluded(run, history, model, network, request, known, left)


def _concluded(
    run: Run,
    history: list[Stage],
    model: nn.Module | None,
    network: Network,
    request: Request,
    known: References,
    left: float | None,
) -> Run:
    """The last stage's run as that of the whole request: from the dense network to the last one."""
    result = run.result
    after, test_after = result.after, result.test_after
    if history[-1].refitted is not None:
        after, test_after = history[-1].refitted, history[-1].test_refitted
    if history[-1].tuned is not None and model is result.model:
        after, test_after = history[-1].tuned, history[-1].test_tuned
    run.watch.allow(left)
    if request.schedule.count > 1:
        result = certify_result(run, known, compute=not run.watch.interrupted)
    measured = replace(
        result.measured, before=network.before, test_before=network.test_before, after=after,
        test_after=test_after, seconds=sum(stage.seconds for stage in history),
    )  # fmt: skip
    moved = any(stage.moved for stage in history)
    result = replace(
        result, request=request, measured=measured, history=history, left_out=network.left_out,
        saved=network.saved, original=clone(network.model).state_dict() if moved else None,
    )  # fmt: skip
    return Run(result, request, run.watch, settled=request.schedule.count > 1)


def _before(network: Network, request: Request) -> float:
    """The fraction that is pruned before there is a stage."""
    if not request.neurons:
        return pruned_before(request, network.layers, network.earlier)
    gone = network.gone
    if request.scope == "network":
        return float(np.concatenate(gone).mean())
    return max(float(group.mean()) for group in gone)


def _part(request: Request, fraction: float, share: float | None, last: bool) -> Request:
    """What is asked of one stage that may take a share of the time; bounds are of interest in the last."""
    alone = request.finetune is None and request.refit != "network"
    limit = share if share is None or alone else SEARCHED * share
    sparsity = request.sparsity if request.pattern is not None else fraction
    return replace(
        request, sparsity=sparsity, stages=1, finetune=None, time_limit=limit,
        certify=request.certify and last, match=None, labels=False, norms=request.renorms,
        refit=None if request.refit == "network" else request.refit,
    )  # fmt: skip


def _share(request: Request, seconds: float) -> float:
    """Of the seconds that are left of a stage's share what its refit may take."""
    return seconds if request.finetune is None else SEARCHED * seconds


def _telling(callback: Callback | None, request: Request, number: int, count: int) -> Callback | None:
    """The callback, told of a stage's steps as parts of the whole."""
    if callback is None:
        return None
    return lambda step: callback(replace(step, asked=request.fraction, part=number, parts=count))


def _network(model: nn.Module, dense: Network, request: Request) -> Network:
    """A stage's network, on the samples of the dense one; held against that, but where labels trained it."""
    names = [layer.name for layer in dense.layers]
    refitted = request.refit == "network"
    reference = None
    if refitted or request.finetune is None:
        reference = Reference(dense, _divergence(dense, request), refitted)
    network = Network(
        model, dense.samples, loss=dense.loss, layers=names, damping=dense.damping, samples=request.samples,
        seed=dense.seed, device=dense.device, reference=reference,
    )  # fmt: skip
    if dense.held_out is not None:
        network.hold_out(dense.held_out)
    return network


def _divergence(dense: Network, request: Request) -> Divergence | None:
    """That of the request's refit, or without one what goes with the loss, if it is known."""
    try:
        return matching(dense.model, dense.samples, dense.loss, request.match, request.labels)
    except ValueError:
        if request.refit == "network":
            raise
        return None


@torch.no_grad()
def _freed(pruned: nn.Module, start: Network, dense: Network, request: Request) -> nn.Module:
    """A copy of a pruned network whose deleted weights live on, at zero or shrunk; see `Schedule`.

    Args:
        pruned: by a stage.
        start: what that stage pruned.
        dense: the network whose masks stay, whatever a stage has pruned.
        request: whose schedule says how.
    """
    model, schedule = clone(pruned), request.schedule
    for layer in start.layers if schedule.deleted == "shrink" else ():
        module = layer.of(model).module
        for name, old in layer.module.named_parameters():
            module.get_parameter(name).lerp_(old.to(module.weight.device), schedule.shrink)
    for name, masks in dense.masks.items():
        for layer_name, mask in masks.items():
            put_mask(model.get_submodule(layer_name), name, mask)
    return model


def _tuned(
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
    masks, state = read_masks(model), copy.deepcopy(model.state_dict())
    model.to(network.device)

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
    seconds = stage.seconds + time.perf_counter() - began
    refresh(model)
    stage = replace(stage, seconds=seconds, epochs=None if own else epochs)
    if whole:
        tuned = evaluate(model, network.samples, network.loss)
        held_out = network.held_out
        test = None if held_out is None else evaluate(model, held_out, network.loss)
        stage = replace(stage, tuned=tuned, test_tuned=test)
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
    found = read_masks(model)
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


def _form(values: torch.Tensor | None) -> str:
    """Shape and type of a tensor of a state dict, in words."""
    if not isinstance(values, torch.Tensor):
        return "not there" if values is None else "no tensor"
    return f"{list(values.shape)} of {values.dtype}"
