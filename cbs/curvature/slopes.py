"""The loss's first derivatives: the mean gradient, which sensitivity rules multiply weights with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cbs.change import array
from cbs.curvature.each import differentiating, gradients
from cbs.network.losses import sample_losses
from solvers.hessian import Array

if TYPE_CHECKING:
    from cbs.network.network import Network


def mean_gradients(network: Network) -> list[Array]:
    """Every layer's `E[dL/dW]`, `[m, n]`, computed once for a network.

    Raises:
        ValueError: if the network or the loss can't be differentiated.
    """

    def compute() -> list[Array]:
        model, layers, samples = network.differentiable()
        weights = [layer.module.weight.requires_grad_() for layer in layers]
        sums = [
            torch.zeros(layer.shape, dtype=torch.float64, device=w.device)
            for layer, w in zip(layers, weights, strict=True)
        ]
        for inputs, targets in samples.batches():
            with differentiating(), torch.enable_grad():
                total = sample_losses(network.loss, model(inputs), targets).sum()
                for known, slope in zip(sums, gradients(total, weights), strict=True):
                    known += slope.double().reshape(known.shape)
        return network.checked([array(found) / len(samples) for found in sums])

    return network.memo("slopes", compute)
