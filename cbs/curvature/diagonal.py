"""The diagonal of the generalized Gauss-Newton matrix: OBD's second derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vjp, vmap

from cbs.data import Samples
from cbs.layers import Layer
from cbs.losses import Loss

CHUNK = 2**24
"""Largest number of Jacobian entries in flight."""


def gauss_newton_diagonal(
    model: nn.Module, layers: Sequence[Layer], samples: Samples, loss: Loss
) -> dict[str, Tensor]:
    """`diag(1/N sum_s J_s' B_s J_s)`, `J` of the outputs by the weights, `B` of the loss by the outputs.

    OBD's second derivatives without the `f''` terms, the Levenberg-Marquardt form (LeCun et al.
    1990, section 3), but without its approximation that hidden units do not interact. `B` is
    positive semidefinite for a convex loss; of another its negative part is left out.

    Args:
        model: network in evaluation mode.
        layers: layers of `model`.
        samples: N inputs and targets.
        loss: of outputs and targets.

    Returns:
        For every layer's name a tensor `[m, n]`, in double precision.
    """
    parameters = {f"{layer.name}.weight": layer.module.weight.detach() for layer in layers}

    def single(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        outputs, pull, *_ = vjp(lambda w: functional_call(model, w, (x[None],))[0], weights)
        B = jacrev(jacrev(lambda output: loss(output[None], y[None]).squeeze()))(outputs)
        values, vectors = torch.linalg.eigh(B.reshape(outputs.numel(), -1))
        root = (vectors * values.clamp(min=0).sqrt()).T.reshape(-1, *outputs.shape)
        (columns,) = vmap(pull)(root)
        return {name: column.square().sum(dim=0) for name, column in columns.items()}

    with torch.no_grad():
        outputs = model(samples.first(1)).numel()
    size = max(1, CHUNK // (outputs * sum(layer.size for layer in layers)))
    totals = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in parameters.items()}
    squares = vmap(single, in_dims=(None, 0, 0))
    for inputs, targets in samples.batches(size):
        with torch.no_grad():
            parts = squares(parameters, inputs, targets)
        for name, part in parts.items():
            totals[name] += part.double().sum(dim=0)
    return {
        layer.name: totals[f"{layer.name}.weight"].reshape(layer.shape) / len(samples) for layer in layers
    }
