"""Layer by layer in running order, on the inputs that the layers pruned before leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import no_grad

from cbs.curvature.base import LayerCurvature
from cbs.network.answers import answer
from cbs.network.layers import never_ran, visiting
from cbs.network.network import Network
from cbs.network.surgery import clone, write
from cbs.plan import LayerPlan
from cbs.quadratic import Quadratic


def recalibrate(network: Network, plans: Sequence[LayerPlan], curvature: LayerCurvature) -> list[LayerPlan]:
    """The plans with their masks and new survivors: `min E|V z - W x|^2 + c |V - W|^2`, layer by layer.

    Of a curvature that weights its rows it is `E omega_r (V_r z - W_r x)^2` of each. `x` is the layer's
    input in the dense network, `z` in the network whose earlier layers, in the order they run, are pruned
    and recalibrated.

    Args:
        network: the dense network.
        plans: a plan for every layer.
        curvature: whose models of layers on changed inputs are taken; its damping is `c`, relative to the
            mean of the diagonal of `E[z z']`.
    """

    def refit(index: int, model: Quadratic) -> LayerPlan:
        masks = [plans[index].change.mask]
        (change,) = model.changes(masks, model.refit(masks))
        return replace(plans[index], change=change)

    found = one_after_another(network, curvature, refit)
    return [found[i] for i in range(len(plans))]


def one_after_another(
    network: Network, curvature: LayerCurvature, prune: Callable[[int, Quadratic], LayerPlan | None]
) -> dict[int, LayerPlan]:
    """Prune a network layer by layer, each on what those before it leave of its inputs.

    Args:
        network: the dense network.
        curvature: whose models are taken, see `cbs.curvature.base.LayerCurvature.paired`.
        prune: makes a layer's plan, from its place and its model on these inputs; None ends the pass.

    Returns:
        The plans by their layers' places, in the order in which layers run.

    Raises:
        ValueError: if a layer does not run.
    """
    model, found = clone(network.model), {}
    for i in _running_order(network):
        plan = prune(i, curvature.paired(network, i, model))
        if plan is None:
            break
        write(network.layers[i].of(model), plan.change.weights)
        found[i] = plan
    return found


def _running_order(network: Network) -> list[int]:
    names: list[str] = []

    def visit(name: str, x: object, y: object) -> None:
        if name not in names:
            names.append(name)

    with no_grad(), visiting(network.layers, visit):
        answer(network.model, network.samples.first(1))
    place = {layer.name: i for i, layer in enumerate(network.layers)}
    idle = [name for name in place if name not in names]
    if idle:
        raise never_ran(idle[0])
    return [place[name] for name in names]
