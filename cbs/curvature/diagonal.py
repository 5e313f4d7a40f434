"""The diagonal of the generalized Gauss-Newton matrix: OBD's second derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call, jacrev, vjp, vmap

from cbs.change import array
from cbs.curvature.each import Each, gradients
from cbs.data import Samples
from cbs.network.layers import Layer
from cbs.network.losses import Loss, single_loss
from cbs.quadratic import Diagonal, Quadratic
from solvers.hessian import Array

if TYPE_CHECKING:
    from cbs.network.network import Network

CHUNK = 2**24
"""Largest number of Jacobian entries in flight."""
WIDEST = 8_192
"""Most outputs of a sample: the loss's curvature by them is a dense matrix."""


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
    weights = [layer.module.weight.requires_grad_() for layer in layers]
    with torch.no_grad():
        outputs = model(samples.first(1)).numel()
    _require_narrow(outputs)

    def root(output: Tensor, B: Tensor) -> Tensor:
        """Columns of a square root of the loss's positive curvature, `[outputs, ...]`."""
        values, vectors = torch.linalg.eigh(B.reshape(output.numel(), -1))
        columns: Tensor = (vectors * values.clamp(min=0).sqrt()).T
        return columns.reshape(-1, *output.shape)

    def single(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        output, pull, *_ = vjp(lambda w: functional_call(model, w, (x[None],))[0], parameters)
        B = jacrev(jacrev(lambda o: single_loss(loss, o[None], y[None])))(output)
        (columns,) = vmap(pull)(root(output, B))
        return {name: column.square().sum(dim=0) for name, column in columns.items()}

    parameters = {f"{layer.name}.weight": layer.module.weight.detach() for layer in layers}
    by_vmap = vmap(single, in_dims=(None, 0, 0))

    def together(inputs: Tensor, targets: Tensor) -> Tensor:
        parts = by_vmap(parameters, inputs, targets)
        return torch.cat([parts[name].reshape(len(inputs), -1) for name in parameters], dim=1)

    def alone(x: Tensor, y: Tensor) -> Tensor:
        output = model(x)
        B = hessian(lambda o: single_loss(loss, o, y), output.detach())  # type: ignore[no-untyped-call]
        squares: Tensor | int = 0
        for column in root(output, B):
            squares += torch.cat([g.reshape(-1).square() for g in gradients(output, weights, column)])
        return torch.as_tensor(squares)

    p = sum(layer.size for layer in layers)
    total = torch.zeros(p, dtype=torch.float64, device=samples.inputs.device)
    each = Each(together, alone)
    for inputs, targets in samples.batches(max(1, CHUNK // (outputs * p))):
        total += each(inputs, targets).double().sum(dim=0)
    parts = torch.split(total / len(samples), [layer.size for layer in layers])
    return {layer.name: part.reshape(layer.shape) for layer, part in zip(layers, parts, strict=True)}


def _require_narrow(outputs: int) -> None:
    if outputs > WIDEST:
        raise ValueError(
            f"method 'obd' needs the loss's curvature by all {outputs} outputs of a sample, its limit is "
            f"{WIDEST}; take another method"
        )
