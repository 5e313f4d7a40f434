"""Refitting every layer to its dense outputs on the inputs that the pruned layers before it leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, no_grad

from cbs.curvature.paired import paired_moments
from cbs.formulation import Pruned, refitted
from cbs.network.layers import visiting
from cbs.network.network import Network
from cbs.network.surgery import clone, write
from cbs.plan import LayerPlan


def recalibrate(network: Network, plans: Sequence[LayerPlan]) -> list[LayerPlan]:
    """The plans with their masks and new survivors: `min E|V z - W x|^2 + c |V - W|^2`, layer by layer.

    `x` is the layer's input in the dense network, `z` in the network whose earlier layers, in the
    order they run, are pruned and recalibrated.

    Args:
        network: the dense network.
        plans: a plan for every layer.
    """
    model = clone(network.model)
    found = list(plans)
    for i in _running_order(network):
        layer = network.layers[i]
        twin = layer.of(model)
        K, C = paired_moments(network.model, model, (layer, twin), network.samples)
        answer: Pruned = refitted(layer, K, C, network.damping, plans[i].answer.mask)
        write(twin, answer.weights)
        found[i] = replace(plans[i], answer=answer)
    return found


def _running_order(network: Network) -> list[int]:
    names: list[str] = []

    def visit(name: str, x: Tensor, y: Tensor) -> None:
        if name not in names:
            names.append(name)

    with no_grad(), visiting(network.layers, visit):
        network.model(network.samples.first(1))
    place = {layer.name: i for i, layer in enumerate(network.layers)}
    return [place[name] for name in names]
