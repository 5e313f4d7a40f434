"""Masks of a method without measuring, proving or refitting anything: what diagnoses ask for many times."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from cbs.methods import get_method
from cbs.network.losses import named_loss
from cbs.network.network import Network
from cbs.plan import Plan
from cbs.references import References
from cbs.request import Request
from cbs.watch import Watch
from solvers.control import interruptible


def prepared(request: Request) -> Request:
    """The request as cheap as its method knows, without bounds and proofs.

    Raises:
        ValueError: in one line, for what its method can't do, or several prunings.
    """
    method = get_method(request.method)
    if request.staged:
        raise ValueError(
            "this is about one pruning; drop stages, finetune and refit 'network', which follow it"
        )
    granularity = request.granularity or method.granularities[0]
    plain = granularity == "weights" or request.granularity is not None
    request = replace(request, certify=False, granularity=request.granularity if plain else granularity)
    request = method.selection.in_passing(request)
    method.check(request)
    return request


def network_of(model: nn.Module, data: Any, request: Request) -> Network:
    """The dense network with its data, as a request says."""
    return Network(
        model, data, loss=named_loss(request.loss), layers=request.layers, damping=request.damping,
        samples=request.samples, seed=request.seed, device=request.device, output=request.output,
        padding=request.padding,
    )  # fmt: skip


def run_once(network: Network, request: Request) -> Plan:
    """What becomes of every layer of a network, before surgery.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        ValueError: in one line, for a network that the method can't prune.
    """
    method = get_method(request.method)
    request = request.of(network.layers)
    watch = Watch(method.name, request, len(network.layers), None)
    with interruptible(watch.control):
        watch.prepare(method.searches, method.selection.searcher(request))
        plan = method.run(network, request, watch, References(network))
    if watch.interrupted:
        raise KeyboardInterrupt
    return plan
