"""How much the loss sees of every output of a layer, sample by sample: the weights of row-weighted Grams.

With `a_r` the pre-activation of row r of a layer (a convolution's at one position), `o` the network's outputs
and `C` a matrix of columns, a weight is `omega_r = sum_c (sum_k C_kc do_k/da_r)^2`: one pass back through the
network for every column.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cbs.curvature.each import differentiating, gradients
from cbs.data import Samples
from cbs.memory import free_memory
from cbs.network.answers import answer
from cbs.network.layers import Layer, never_ran, visiting
from cbs.network.losses import Loss, sample_losses
from cbs.network.padding import only, places_of
from cbs.refit.divergence import Divergence, Squares, choose

if TYPE_CHECKING:
    from cbs.network.network import Network

TOGETHER = 200
"""Samples of a pass back."""
EXACT = 64
"""Outputs of a sample up to which every column of the loss's curvature is taken."""
DRAWS = 16
"""Random combinations of the columns that take their place where there are more."""
SHARE = 0.25
"""Of the memory that is free: what the weights of a network's layers, or else of one layer, may take."""


def row_weights(network: Network, omega: str, index: int) -> list[Tensor]:
    """The weights of a layer's rows in the dense network: `[samples * positions, m]` of every batch and run.

    Those of all layers are computed at once, and kept, where they fit into memory.

    Args:
        network: the dense network.
        omega: `gradient`, `gauss-newton` or `outputs`, see `cbs.RowGram`.
        index: place of the layer.

    Raises:
        ValueError: if a layer's weights do not fit into memory, or derivatives can't be had.
    """
    sizes = network.memo("omega sizes", lambda: _sizes(network))
    limit = SHARE * free_memory()

    def compute(layers: Sequence[Layer]) -> dict[str, list[Tensor]]:
        model, _, samples = network.differentiable()
        inside = [layer.of(model) for layer in layers]
        return output_weights(model, inside, samples, network.loss, omega, network.seed)

    layer = network.layers[index]
    if ("omega", omega) in network.memo or sum(sizes) <= limit:
        return network.memo(("omega", omega), lambda: compute(network.layers))[layer.name]
    if sizes[index] > limit:
        raise ValueError(
            f"layer {layer.name!r}: weights of its rows at every position of {len(network.samples)} samples "
            f"take {sizes[index] / 2**30:.1f} GiB of memory, the limit is {limit / 2**30:.1f}; take fewer "
            "`samples`, or method 'joint'"
        )
    return compute([layer])[layer.name]


def _sizes(network: Network) -> list[int]:
    """Bytes that the weights of every layer take."""
    found = dict.fromkeys((layer.name for layer in network.layers), 0)

    def visit(name: str, x: Tensor, y: Tensor) -> None:
        found[name] += 4 * y.numel()

    with torch.no_grad(), visiting(network.layers, visit):
        answer(network.model, network.samples.first(1))
    return [size * len(network.samples) for size in found.values()]


def output_weights(
    model: nn.Module, layers: Sequence[Layer], samples: Samples, loss: Loss, omega: str, seed: int = 0
) -> dict[str, list[Tensor]]:
    """`omega_r` of every layer's rows, `[samples * positions, m]` a batch and run, in single precision.

    Batches are those of `samples.batches(TOGETHER)`; a layer that runs more than once a pass has an entry for
    every run, in their order.

    Args:
        model: network in evaluation mode, whose answers to samples do not depend on each other.
        layers: layers of `model`.
        samples: N inputs and targets.
        loss: of outputs and targets.
        omega: see `columns`.
        seed: of what is drawn where a sample has many outputs.

    Raises:
        ValueError: if the network can't be differentiated, or a layer never runs.
    """
    by_name = {layer.name: layer for layer in layers}
    found: dict[str, list[Tensor]] = {name: [] for name in by_name}
    generator = torch.Generator().manual_seed(seed)
    for inputs, targets in samples.batches(TOGETHER):
        runs: list[tuple[str, Tensor, Tensor | None]] = []

        def visit(name: str, x: Tensor, y: Tensor, runs: list[Any] = runs) -> Tensor:
            y = y if y.requires_grad else y.requires_grad_()
            runs.append((name, y, places_of(by_name[name], y)))
            return y.clone()

        with differentiating(), torch.enable_grad(), visiting(layers, visit):
            outputs = answer(model, inputs)
            ran = [*runs]  # a checkpoint runs layers once more on the way back
            sums: list[Tensor] = []
            for column in columns(outputs.detach(), targets, loss, omega, generator):
                slopes = gradients(outputs, [y for _, y, _ in ran], column.to(outputs.dtype))
                squares = [slope.float().square() for slope in slopes]
                sums = [a.add_(b) for a, b in zip(sums, squares, strict=True)] if sums else squares
        for (name, _, places), total in zip(ran, sums, strict=True):
            found[name].append(by_name[name].flatten(only(total, places)).contiguous())
    for name, parts in found.items():
        if not parts:
            raise never_ran(name)
    return found


def columns(
    outputs: Tensor, targets: Tensor, loss: Loss, omega: str, generator: torch.Generator
) -> Iterator[Tensor]:
    """Columns of every sample's `C`, each of the outputs' shape.

    `gradient`: the one column `dL/do`, of the loss on the labels. Else those of a root of `B = C C'`, the
    curvature of a divergence by the outputs: for `outputs` of half their squared distance, where it is the
    unit matrix; for `gauss-newton` of what refit `network` brings together, or where that is not known of the
    loss on the labels. Of more than `EXACT` outputs C is multiplied with `DRAWS` columns of random signs,
    over `sqrt(DRAWS)`: the weights are then right in expectation.

    Raises:
        ValueError: for a loss without curvature by the outputs.
    """
    if omega == "gradient":
        point = outputs.clone().requires_grad_()
        with torch.enable_grad():
            yield torch.autograd.grad(sample_losses(loss, point, targets).sum(), point)[0]
        return
    divergence = Squares() if omega == "outputs" else _of_loss(loss, outputs, targets)
    known = outputs if divergence.dense else targets
    if outputs[0].numel() <= EXACT:
        yield from divergence.columns(outputs, known)
        return
    for _ in range(DRAWS):
        signs = 2.0 * torch.randint(2, outputs.shape, generator=generator).to(outputs) - 1.0
        yield divergence.rooted(outputs, known, signs / math.sqrt(DRAWS))


def _of_loss(loss: Loss, outputs: Tensor, targets: Tensor) -> Divergence:
    """The divergence that goes with a loss, or else the loss on its targets."""
    try:
        return choose(loss, None, False, outputs, targets)
    except ValueError:
        return choose(loss, None, True, outputs, targets)
