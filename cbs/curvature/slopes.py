"""The loss's first derivatives: the mean gradient, which sensitivity rules multiply weights with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cbs.change import array
from cbs.curvature.each import differentiating, gradients
from cbs.network.answers import answer
from cbs.network.leaves import Leaves
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
        leaves = Leaves(layers)
        sums = [torch.zeros(layer.shape, dtype=torch.float64, device=layer.weight.device) for layer in layers]
        for inputs, targets in samples.batches():
            with differentiating(), torch.enable_grad():
                total = sample_losses(network.loss, answer(model, inputs), targets).sum()
                found = gradients(total, leaves.tensors)
                for known, slope in zip(sums, leaves.parts(found), strict=True):
                    known += slope.double().reshape(known.shape)
        return network.checked([array(part) / len(samples) for part in sums])

    return network.memo("slopes", compute)
