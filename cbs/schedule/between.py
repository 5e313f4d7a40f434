"""Between two stages: what the next one starts from, and what it is held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from cbs.earlier import pruned_before
from cbs.network.network import Network, Reference
from cbs.network.surgery import clone, put_mask
from cbs.refit.network import matching

if TYPE_CHECKING:
    from cbs.refit.divergence import Divergence
    from cbs.request import Request


def sparsity_before(network: Network, request: Request) -> float:
    """The fraction that is pruned before there is a stage."""
    if not request.neurons:
        return pruned_before(request, network.layers, network.earlier)
    gone = network.gone
    if request.scope == "network":
        return float(np.concatenate(gone).mean())
    return max(float(group.mean()) for group in gone)


def stage_network(model: nn.Module, dense: Network, request: Request) -> Network:
    """A stage's network, on the samples of the dense one; held against that, but where labels trained it."""
    names = [layer.name for layer in dense.layers]
    refitted = request.refit == "network"
    reference = None
    if refitted or request.finetune is None:
        reference = Reference(dense, _divergence(dense, request), refitted)
    network = Network(
        model, dense.samples, loss=dense.loss, layers=names, damping=dense.damping, samples=request.samples,
        seed=dense.seed, device=dense.device, reference=reference, output=request.output,
        padding=request.padding, across=dense.across,
    )  # fmt: skip
    network.executor = dense.executor
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
def freed(pruned: nn.Module, start: Network, dense: Network, request: Request) -> nn.Module:
    """A copy of a pruned network whose deleted weights live on, at zero or shrunk; see `Schedule`.

    Args:
        pruned: by a stage.
        start: what that stage pruned.
        dense: the network whose masks stay, whatever a stage has pruned.
        request: whose schedule says how.
    """
    model, schedule = clone(pruned), request.schedule
    modules = {layer.path: layer.module for layer in start.layers if schedule.deleted == "shrink"}
    for path, module in modules.items():
        for name, old in module.named_parameters():
            new = model.get_submodule(path).get_parameter(name)
            new.lerp_(old.to(new.device), schedule.shrink)
    for name, masks in dense.masks.items():
        for layer_name, mask in masks.items():
            put_mask(model.get_submodule(layer_name), name, mask)
    return model
