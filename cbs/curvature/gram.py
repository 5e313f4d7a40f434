"""The layer Gram: how much a layer's output moves, squared, when its weights do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cbs.data import Samples
from cbs.layers import Layer, visiting


def layer_grams(model: nn.Module, layers: Sequence[Layer], samples: Samples) -> dict[str, Tensor]:
    """`H = 1/N sum_samples sum_positions x x'` of every layer, in double precision.

    `1/2 sum_r D_r H D_r'` is half the mean squared change of the layer's output, summed over its
    positions, when its weights move by `D`. With a bias `x` ends in a 1, and so the bias is the
    last column of `D`. A layer that runs more than once a pass counts every run.

    Args:
        model: network in evaluation mode.
        layers: layers of `model`.
        samples: N inputs; streamed in batches.

    Returns:
        For every layer's name `[n, n]`, or `[n + 1, n + 1]` with a bias.
    """
    grams: dict[str, Tensor] = {}
    by_name = {layer.name: layer for layer in layers}

    def visit(name: str, x: Tensor, y: Tensor) -> None:
        for X in by_name[name].parts(x, y):
            H = grams.setdefault(name, X.new_zeros(X.shape[1], X.shape[1]))
            H.addmm_(X.T, X, alpha=1.0 / len(samples))

    with torch.no_grad(), visiting(layers, visit):
        for inputs, _ in samples.batches():
            model(inputs)
    return grams
