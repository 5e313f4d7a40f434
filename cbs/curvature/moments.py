"""Moments over samples of first derivatives, and of per-sample curvature: the two readings of OBD-SD.

Nothing of the size samples by weights is kept: derivatives are taken a few samples at a time and added up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cbs.change import array
from cbs.curvature.diagonal import by_layer
from cbs.curvature.fisher import sample_gradients
from cbs.curvature.gauss_newton import rooted_jacobians
from solvers.hessian import Array

if TYPE_CHECKING:
    from cbs.network.network import Network


def fisher_diagonal(network: Network) -> list[Array]:
    """Every layer's `1/N sum_s g_s^2`, `[m, n]`, on as many samples as per-sample gradients are asked of."""
    model, layers, samples = network.differentiable()
    samples = samples.choose(network.gradients, network.seed)
    total = torch.zeros(sum(layer.size for layer in layers), dtype=torch.float64, device=samples.device)
    for rows in sample_gradients(model, layers, samples, network.loss):
        total += rows.double().square().sum(dim=0)
    found = by_layer(layers, total / len(samples))
    return network.checked([array(found[layer.name]) for layer in network.layers])


def gauss_newton_spread(network: Network) -> list[Array]:
    """Every layer's standard deviation over samples of the Gauss-Newton diagonals `h_s`, `[m, n]`.

    Batch by batch means and squared deviations are merged (Chan et al. 1983), which does not cancel.

    Raises:
        ValueError: if no sample has such derivatives.
    """
    model, layers, samples = network.differentiable()
    mean = torch.zeros(sum(layer.size for layer in layers), dtype=torch.float64, device=samples.device)
    squares, seen = torch.zeros_like(mean), 0
    for roots in rooted_jacobians(model, layers, samples, network.loss):
        rows, count = roots.double().square().sum(dim=1), len(roots)
        away = rows.mean(dim=0) - mean
        squares += (rows - rows.mean(dim=0)).square().sum(dim=0)
        squares += away.square() * (seen * count / (seen + count))
        seen += count
        mean += away * (count / seen)
    found = by_layer(layers, (squares / seen).sqrt())
    return network.checked([array(found[layer.name]) for layer in network.layers])
