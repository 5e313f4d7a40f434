"""Per-sample gradients: the factor of the empirical Fisher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from cbs.data import Samples
from cbs.layers import Layer
from cbs.losses import Loss

CHUNK = 2**24
"""Largest number of gradient entries in flight."""


def gradient_factor(model: nn.Module, layers: Sequence[Layer], samples: Samples, loss: Loss) -> Tensor:
    """`X [N, p]` with the empirical Fisher `F = X'X / N`, in double precision.

    Row s is the gradient of the loss of sample s with respect to the weights of all layers, one
    after the other, each flattened row by row; biases are left out (Yu et al. 2022, section 4;
    Singh & Alistarh 2020).

    Args:
        model: network in evaluation mode.
        layers: layers of `model`.
        samples: N inputs and targets.
        loss: of outputs and targets.
    """
    parameters = {f"{layer.name}.weight": layer.module.weight.detach() for layer in layers}

    def single(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(model, weights, (x[None],)), y[None]).squeeze()

    p = sum(layer.size for layer in layers)
    X = torch.empty(len(samples), p, dtype=torch.float64, device=samples.inputs.device)
    gradients = vmap(grad(single), in_dims=(None, 0, 0))
    done = 0
    for inputs, targets in samples.batches(max(1, CHUNK // p)):
        with torch.no_grad():
            parts = gradients(parameters, inputs, targets)
        flat = [parts[name].reshape(len(inputs), -1) for name in parameters]
        X[done : done + len(inputs)] = torch.cat(flat, dim=1)
        done += len(inputs)
    return X
