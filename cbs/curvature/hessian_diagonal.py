"""The diagonal of the loss's Hessian: exact for small networks, or by Hutchinson's estimate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cbs.change import array
from cbs.curvature.diagonal import by_layer
from cbs.curvature.each import differentiating, gradients
from cbs.data import Samples
from cbs.network.layers import Layer, visiting
from cbs.network.losses import Loss, sample_losses
from solvers.hessian import Array

if TYPE_CHECKING:
    from cbs.network.network import Network

LIMIT = 4_096
"""Most Hessian products for an exact diagonal; each is two passes over the data."""


def network_hessian_diagonal(network: Network) -> list[Array]:
    """Every layer's exact Hessian diagonal, `[m, n]`.

    Raises:
        ValueError: if the network or the loss can't be differentiated twice.
    """
    model, layers, samples = network.differentiable()
    found = hessian_diagonal(model, layers, samples, network.loss)
    return network.checked([array(found[layer.name]) for layer in network.layers])


def too_many(network: Network) -> str | None:
    """Why an exact diagonal would take too long, in words that follow a method's name, or None."""
    simple = single_run(network.model, network.layers, network.samples)
    count = sum(layer.shape[0] if layer.name in simple else layer.size for layer in network.layers)
    if count <= LIMIT:
        return None
    return (
        f"needs {count} Hessian products on this network, its limit is {LIMIT}; take method 'obd' or "
        "'obd-recursion', or name smaller `layers`"
    )


def single_run(model: nn.Module, layers: Sequence[Layer], samples: Samples) -> set[str]:
    """Names of the `Linear` layers that run once a pass, on one vector a sample."""
    ran: list[str] = []
    vectors: set[str] = set()

    def visit(name: str, x: Tensor, y: Tensor) -> None:
        ran.append(name)
        if y.ndim == 2:
            vectors.add(name)

    linear = [layer for layer in layers if isinstance(layer.module, nn.Linear)]
    with torch.no_grad(), visiting(linear, visit):
        model(samples.first(1))
    return {name for name in vectors if ran.count(name) == 1}


def hessian_diagonal(
    model: nn.Module, layers: Sequence[Layer], samples: Samples, loss: Loss
) -> dict[str, Tensor]:
    """`1/N sum_s d2E_s/dw_q^2` of every weight q, without approximation.

    A `Linear` layer that runs once, on one vector a sample, takes a Hessian product for every unit: the loss
    sees `w_ij` through `a_i` alone, so that `d2E/dw_ij^2 = x_j^2 d2E/da_i^2`, sample by sample. Others take
    one for every weight.

    Args:
        model: network in evaluation mode; its layers' weights are made to require gradients.
        layers: layers of `model`.
        samples: N inputs and targets.
        loss: of outputs and targets.

    Returns:
        For every layer's name a tensor `[m, n]`, in double precision.

    Raises:
        ValueError: if the network or the loss can't be differentiated twice.
    """
    simple = single_run(model, layers, samples)
    units = [layer for layer in layers if layer.name in simple]
    others = [layer for layer in layers if layer.name not in simple]
    found = {layer.name: torch.zeros(layer.shape, dtype=torch.float64) for layer in layers}
    for layer in layers:
        layer.module.weight.requires_grad_()
    for inputs, targets in samples.batches():
        seen: dict[str, tuple[Tensor, Tensor]] = {}

        def visit(name: str, x: Tensor, y: Tensor, seen: dict[str, tuple[Tensor, Tensor]] = seen) -> Tensor:
            seen[name] = x.detach().double(), y
            return y.clone()

        with differentiating(), torch.enable_grad(), visiting(units, visit):
            total = sample_losses(loss, model(inputs), targets).sum()
            ran = [seen[layer.name] for layer in units]
            points = [a for _, a in ran] + [layer.module.weight for layer in others]
            slopes = torch.autograd.grad(total, points, create_graph=True, allow_unused=True)
            for layer, (x, a), slope in zip(units, ran, slopes, strict=False):
                by_units = [_second(slope, (slice(None), i), a).double() for i in range(layer.shape[0])]
                if by_units:
                    found[layer.name] += (torch.stack(by_units) @ x.square()).cpu()
            for layer, slope in zip(others, slopes[len(units) :], strict=True):
                if slope is None or not slope.requires_grad:
                    continue
                weight, rows = layer.module.weight, slope.reshape(-1)
                values = [gradients(rows[q], [weight])[0].reshape(-1)[q] for q in range(layer.size)]
                found[layer.name] += torch.stack(values).double().reshape(layer.shape).cpu()
    return {name: part / len(samples) for name, part in found.items()}


def _second(slope: Tensor | None, place: tuple[slice, int], point: Tensor) -> Tensor:
    """`d2E_s/da_i^2` of every sample s, from the slope `dE/da [N, m]`: samples do not interact."""
    if slope is None or not slope.requires_grad:
        return torch.zeros_like(point[place])
    return gradients(slope[place].sum(), [point])[0][place]


def hutchinson_estimate(network: Network, probes: int, seed: int) -> tuple[list[Array], list[Array]]:
    """Every layer's `1/P sum_p z_p * H z_p` over random signs `z_p`, and its standard errors: `[m, n]` each.

    Computed once for a network.

    Args:
        network: the dense network.
        probes: P.
        seed: of the signs.

    Raises:
        ValueError: if the network or the loss can't be differentiated twice.
    """

    def compute() -> tuple[list[Array], list[Array]]:
        model, layers, samples = network.differentiable()
        p = sum(layer.size for layer in layers)
        generator = torch.Generator().manual_seed(seed)
        z = (2 * torch.randint(2, (probes, p), generator=generator) - 1).to(samples.inputs.device)
        found = torch.zeros(probes, p, dtype=torch.float64, device=samples.inputs.device)
        for part in hessian_products(model, layers, samples, network.loss, z):
            found += part
        found *= z / len(samples)
        error = found.std(dim=0) / probes**0.5
        mean, errors = (by_layer(layers, each) for each in (found.mean(dim=0), error))
        names = [layer.name for layer in network.layers]
        estimate = network.checked([array(mean[name]) for name in names])
        return estimate, [array(errors[name]) for name in names]

    return network.memo(("hutchinson", probes, seed), compute)


def hessian_products(
    model: nn.Module, layers: Sequence[Layer], samples: Samples, loss: Loss, vectors: Tensor
) -> Iterator[Tensor]:
    """`sum_s H_s v` over a batch of samples, for each batch: `[k, p]`, in double precision.

    Args:
        model: network in evaluation mode; its layers' weights are made to require gradients.
        layers: layers of `model`.
        samples: inputs and targets.
        loss: of outputs and targets.
        vectors: `[k, p]`, weights layer after layer.
    """
    weights = [layer.module.weight.requires_grad_() for layer in layers]
    for inputs, targets in samples.batches():
        with differentiating(), torch.enable_grad():
            total = sample_losses(loss, model(inputs), targets).sum()
            slopes = torch.autograd.grad(total, weights, create_graph=True, allow_unused=True)
            flat = torch.cat(
                [
                    (torch.zeros_like(w) if g is None else g).reshape(-1)
                    for w, g in zip(weights, slopes, strict=True)
                ]
            )
            rows = [
                torch.cat([part.reshape(-1) for part in gradients(flat, weights, v.to(flat.dtype))])
                for v in vectors
            ]
        yield torch.stack(rows).double().detach()
