"""The diagonal of the generalized Gauss-Newton matrix: OBD's second derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cbs.change import array
from cbs.curvature.gauss_newton import rooted_jacobians
from cbs.data import Samples
from cbs.network.layers import Layer
from cbs.network.losses import Loss
from cbs.quadratic import Diagonal, Quadratic
from solvers.hessian import Array

if TYPE_CHECKING:
    from cbs.network.network import Network


def diagonal_quadratics(network: Network, values: Sequence[Array]) -> list[Quadratic]:
    """Every layer's model `1/2 sum h D^2`, from its `h [m, n]`."""
    parts = zip(network.layers, network.dense, values, network.earlier, strict=True)
    return [
        Quadratic(range(i, i + 1), (dense,), Diagonal(h), (mask,), layer.name)
        for i, (layer, dense, h, mask) in enumerate(parts)
    ]


def network_diagonal(network: Network) -> list[Array]:
    """Every layer's diagonal of the generalized Gauss-Newton matrix, `[m, n]`, undamped."""
    model, layers, samples = network.differentiable()
    found = gauss_newton_diagonal(model, layers, samples, network.loss)
    return network.checked([array(found[layer.name]) for layer in network.layers])


def gauss_newton_diagonal(
    model: nn.Module, layers: Sequence[Layer], samples: Samples, loss: Loss
) -> dict[str, Tensor]:
    """`diag(1/N sum_s J_s' B_s J_s)`, `J` of the outputs by the weights, `B` of the loss by the outputs.

    OBD's second derivatives without the `f''` terms, the Levenberg-Marquardt form (LeCun et al.
    1990, section 3), but without its approximation that hidden units do not interact. `B` is
    positive semidefinite for a convex loss; of another its negative part is left out.

    Args:
        model: network in evaluation mode; its layers' weights are made to require gradients.
        layers: layers of `model`.
        samples: N inputs and targets.
        loss: of outputs and targets.

    Returns:
        For every layer's name a tensor `[m, n]`, in double precision.

    Raises:
        ValueError: if a sample has no such derivatives, or too many outputs.
    """
    p = sum(layer.size for layer in layers)
    total = torch.zeros(p, dtype=torch.float64, device=samples.device)
    for rows in rooted_jacobians(model, layers, samples, loss):
        total += rows.double().square().sum(dim=(0, 1))
    return by_layer(layers, total / len(samples))


def by_layer(layers: Sequence[Layer], values: Tensor) -> dict[str, Tensor]:
    """For every layer's name its part `[m, n]` of values `[p]` for all weights, layer after layer."""
    parts = torch.split(values, [layer.size for layer in layers])
    return {layer.name: part.reshape(layer.shape) for layer, part in zip(layers, parts, strict=True)}
