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
from cbs.network.answers import answer
from cbs.network.layers import Layer, visiting
from cbs.network.leaves import Leaves
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
    places = single_runs(network.model, network.layers, network.samples)
    counts = [
        min(layer.size, layer.shape[0] * places.get(layer.name, layer.size)) for layer in network.layers
    ]
    count = sum(counts)
    if count <= LIMIT:
        return None
    return (
        f"needs {count} Hessian products on this network, its limit is {LIMIT}; take method 'obd' or "
        "'obd-recursion', or name smaller `layers`"
    )


def single_runs(model: nn.Module, layers: Sequence[Layer], samples: Samples) -> dict[str, int]:
    """How many places a layer has, by its name, of those that run once a pass: one for a vector a sample."""
    ran: list[str] = []
    places: dict[str, int] = {}

    def visit(name: str, x: Tensor, y: Tensor) -> None:
        ran.append(name)
        if y.ndim > 1 and len(y) == 1:
            places[name] = y.numel() // by_name[name].shape[0]

    by_name = {layer.name: layer for layer in layers}
    with torch.no_grad(), visiting(layers, visit):
        answer(model, samples.first(1))
    return {name: count for name, count in places.items() if ran.count(name) == 1}


def hessian_diagonal(
    model: nn.Module, layers: Sequence[Layer], samples: Samples, loss: Loss
) -> dict[str, Tensor]:
    """`1/N sum_s d2E_s/dw_q^2` of every weight q, without approximation.

    A layer that runs once takes a Hessian product for every unit i and place p: the loss sees `w_ij` through
    the `a_ip` alone, so that `d2E/dw_ij^2 = sum_pq x_pj x_qj d2E/da_ip da_iq`, sample by sample. Others, and
    those that have fewer weights than units and places, take one for every weight.

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
    places = single_runs(model, layers, samples)
    units = [layer for layer in layers if layer.shape[0] * places.get(layer.name, layer.size) <= layer.size]
    others = [layer for layer in layers if layer not in units]
    found = {layer.name: torch.zeros(layer.shape, dtype=torch.float64) for layer in layers}
    Leaves(layers)  # so that whatever comes behind them has derivatives
    leaves = Leaves(others)
    for inputs, targets in samples.batches():
        seen: dict[str, tuple[Tensor, Tensor]] = {}

        def visit(name: str, x: Tensor, y: Tensor, seen: dict[str, tuple[Tensor, Tensor]] = seen) -> Tensor:
            seen[name] = x.detach(), y
            return y.clone()

        with differentiating(), torch.enable_grad(), visiting(units, visit):
            total = sample_losses(loss, answer(model, inputs), targets).sum()
            ran = [seen[layer.name] for layer in units]
            points = [a for _, a in ran] + leaves.tensors
            slopes = torch.autograd.grad(total, points, create_graph=True, allow_unused=True)
            for layer, (x, a), slope in zip(units, ran, slopes, strict=False):
                if slope is not None and slope.requires_grad:
                    found[layer.name] += _by_units(layer, x, a, slope).cpu()
            for layer, weight, slope in zip(
                others, leaves.owners, leaves.parts(slopes[len(units) :]), strict=True
            ):
                if slope is None or not slope.requires_grad:
                    continue
                rows = slope.reshape(-1)
                values = [
                    layer.matrix(gradients(rows[q], [weight])[0]).reshape(-1)[q] for q in range(layer.size)
                ]
                found[layer.name] += torch.stack(values).double().reshape(layer.shape).cpu()
    return {name: part / len(samples) for name, part in found.items()}


def _by_units(layer: Layer, x: Tensor, a: Tensor, slope: Tensor) -> Tensor:
    """`[m, n]` sum over samples and pairs of places p, q of `x_pj x_qj d2E/da_ip da_iq`.

    Args:
        layer: that ran once.
        x: its inputs.
        a: its outputs.
        slope: `dE/da`, of which samples do not interact.
    """
    N, (m, n) = len(a), layer.shape
    X = layer.unfold(x).double().reshape(N, -1, n)
    rows = layer.flatten(slope).reshape(N, -1, m)
    found = X.new_zeros(m, n)
    for i in range(m):
        for p in range(X.shape[1]):
            (back,) = gradients(rows[:, p, i].sum(), [a])
            second = layer.flatten(back).reshape(N, -1, m)[:, :, i].double()
            found[i] += ((second[:, None] @ X)[:, 0] * X[:, p]).sum(dim=0)
    return found


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
        z = (2 * torch.randint(2, (probes, p), generator=generator) - 1).to(samples.device)
        found = torch.zeros(probes, p, dtype=torch.float64, device=samples.device)
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
    leaves = Leaves(layers)
    for inputs, targets in samples.batches():
        with differentiating(), torch.enable_grad():
            total = sample_losses(loss, answer(model, inputs), targets).sum()
            slopes = torch.autograd.grad(total, leaves.tensors, create_graph=True, allow_unused=True)
            flat = leaves.flat(
                [torch.zeros_like(w) if g is None else g for w, g in zip(leaves.tensors, slopes, strict=True)]
            )
            rows = [leaves.flat(gradients(flat, leaves.tensors, v.to(flat.dtype))) for v in vectors]
        yield torch.stack(rows).double().detach()
