"""How much the loss cares about each row's output: the scale that makes layers comparable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cbs.change import array
from cbs.curvature.each import differentiating, gradients
from cbs.data import Samples
from cbs.network.answers import answer
from cbs.network.layers import Layer, never_ran, visiting
from cbs.network.losses import Loss, sample_losses
from solvers.hessian import Array

if TYPE_CHECKING:
    from cbs.network.network import Network


def row_scales(network: Network) -> list[Array]:
    """Every layer's row scales `E[(dL/da_r)^2]`, `[m]`, computed once for a network."""

    def compute() -> list[Array]:
        model, layers, samples = network.differentiable()
        scales = output_scales(model, layers, samples, network.loss)
        return network.checked([array(scales[layer.name]) for layer in network.layers])

    return network.memo("scales", compute)


def output_scales(
    model: nn.Module, layers: Sequence[Layer], samples: Samples, loss: Loss
) -> dict[str, Tensor]:
    """`E[(dL/da_r)^2]` of every row, over samples and positions, in double precision.

    `L` is the loss of one sample and `a_r` the row's pre-activation. `1/2 sum_r scale_r D_r H D_r'`
    with the layer Gram `H` is then the Fisher model of the loss that takes inputs and output
    gradients to be independent (Martens & Grosse 2015, with a diagonal output factor).

    Args:
        model: network in evaluation mode.
        layers: layers of `model`.
        samples: N inputs and targets; streamed in batches.
        loss: of outputs and targets.

    Returns:
        For every layer's name `[m]`.

    Raises:
        ValueError: if the network or the loss can't be differentiated, or a layer never runs.
    """
    by_name = {layer.name: layer for layer in layers}
    sums = {layer.name: torch.zeros(layer.shape[0], dtype=torch.float64) for layer in layers}
    counts = dict.fromkeys(sums, 0)
    for inputs, targets in samples.batches():
        seen: list[tuple[str, Tensor]] = []

        def visit(name: str, x: Tensor, y: Tensor, seen: list[tuple[str, Tensor]] = seen) -> Tensor:
            seen.append((name, y if y.requires_grad else y.requires_grad_()))
            return y.clone()

        with differentiating(), torch.enable_grad(), visiting(layers, visit):
            total = sample_losses(loss, answer(model, inputs), targets).sum()
            ran = [*seen]  # a checkpoint runs layers once more on the way back
            found = gradients(total, [y for _, y in ran])
        for (name, _), g in zip(ran, found, strict=True):
            rows = by_name[name].flatten(g).double()
            sums[name] += rows.square().sum(dim=0).cpu()
            counts[name] += len(rows)
    for name, count in counts.items():
        if not count:
            raise never_ran(name)
    return {name: sums[name] / counts[name] for name in sums}
