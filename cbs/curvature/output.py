"""How much the loss cares about each row's output: the scale that makes layers comparable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cbs.change import array
from cbs.curvature.each import differentiating, gradients
from cbs.data import Samples
from cbs.network.answers import answer
from cbs.network.distance import OutputDistance
from cbs.network.layers import Layer, never_ran, row_sums, visiting
from cbs.network.losses import Loss, sample_losses
from cbs.network.padding import only, places_of, real_places
from solvers.hessian import Array

DRAWS = 16
"""Random combinations of the outputs by which a distance of these sees rows."""

if TYPE_CHECKING:
    from cbs.network.network import Network


def row_scales(network: Network) -> list[Array]:
    """Every layer's row scales `E[(dL/da_r)^2]`, `[m]`, computed once for a network."""

    def compute() -> list[Array]:
        model, layers, samples = network.differentiable()
        scales = output_scales(model, layers, samples, network.loss)
        return network.checked([array(scales[layer.name]) for layer in network.layers])

    return network.memo("scales", compute)


def _seen_by(loss: Loss, outputs: Tensor, targets: Any, signs: torch.Generator) -> Iterator[Tensor]:
    """What is differentiated by the rows: the loss, or of a distance of outputs columns of its curvature.

    The slope of a distance is zero at the dense network. With random signs z the square of the derivative of
    `sqrt(2 / scale) z'o` is, in expectation, what a row's move does to the distance, to second order.
    """
    if not isinstance(loss, OutputDistance):
        yield sample_losses(loss, outputs, targets).sum()
        return
    for _ in range(DRAWS):
        z = 2.0 * torch.randint(2, outputs.shape, generator=signs).to(outputs) - 1.0
        yield (outputs * z).sum() * (2.0 / loss.scale / DRAWS) ** 0.5


def output_scales(
    model: nn.Module, layers: Sequence[Layer], samples: Samples, loss: Loss
) -> dict[str, Tensor]:
    """`E[(dL/da_r)^2]` of every row, over samples and positions, in double precision.

    `L` is the loss of one sample and `a_r` the row's pre-activation. `1/2 sum_r scale_r D_r H D_r'`
    with the layer Gram `H` is then the Fisher model of the loss that takes inputs and output
    gradients to be independent (Martens & Grosse 2015, with a diagonal output factor). The row of an
    Embedding is a token, of which `a_r` is a vector of n: its scale is the mean of `|dL/da_r|^2 / n` over the
    places where it stands, zero if it stands nowhere.

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
    counts: dict[str, Tensor] = {name: torch.zeros_like(total) for name, total in sums.items()}
    signs = torch.Generator().manual_seed(0)

    def take(inputs: Any, targets: Any) -> None:
        """A batch, of which nothing is held when the next one begins."""
        seen: list[tuple[str, Tensor, Tensor | None, Tensor | None]] = []

        def visit(name: str, x: Tensor, y: Tensor) -> Tensor:
            y = y if y.requires_grad else y.requires_grad_()
            tokens = real_places(by_name[name], x, y)[0].flatten() if by_name[name].tokens else None
            seen.append((name, y, places_of(by_name[name], y), tokens))
            return y.clone()

        with differentiating(), torch.enable_grad(), visiting(layers, visit):
            outputs = answer(model, inputs)
            ran = [*seen]  # a checkpoint runs layers once more on the way back
            for k, total in enumerate(_seen_by(loss, outputs, targets, signs)):
                found = gradients(total, [y for _, y, _, _ in ran])
                for (name, _, places, tokens), g in zip(ran, found, strict=True):
                    rows = by_name[name].flatten(only(g, places)).double()
                    m = len(sums[name])
                    if tokens is None:
                        sums[name] += rows.square().sum(dim=0).cpu()
                        counts[name] += 0 if k else len(rows)
                    else:
                        sums[name] += row_sums(tokens, rows.square().mean(dim=1), m).cpu()
                        counts[name] += 0 if k else row_sums(tokens, torch.ones_like(rows[:, 0]), m).cpu()

    for inputs, targets in samples.batches():
        take(inputs, targets)
    for name, count in counts.items():
        if not bool(count.any()):
            raise never_ran(name)
    return {name: sums[name] / counts[name].clamp(min=1.0) for name in sums}
