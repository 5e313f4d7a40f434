"""Rows of the generalized Gauss-Newton matrix, one a sample and output: a factor that is never formed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import jacrev, vjp, vmap

from cbs.curvature.each import Each, gradients
from cbs.curvature.fisher import factor_quadratics, require_memory
from cbs.data import Samples
from cbs.memory import at_once
from cbs.network.answers import answer, functional
from cbs.network.layers import Layer
from cbs.network.leaves import Leaves
from cbs.network.losses import Loss, single_loss
from cbs.quadratic import Quadratic

if TYPE_CHECKING:
    from cbs.curvature.base import GaussNewton
    from cbs.network.network import Network

CHUNK = 2**24
"""Largest number of Jacobian entries in flight."""
WIDEST = 8_192
"""Most outputs of a sample: the loss's curvature by them is a dense matrix."""


def gauss_newton_quadratics(network: Network, curvature: GaussNewton) -> list[Quadratic]:
    """The models `1/2 D H D'` of a damped `GaussNewton`: one of all layers, or a block a layer.

    Weights that were pruned before have no part in it.
    """

    def rows() -> Tensor:
        model, layers, samples = network.differentiable()
        chosen = samples.choose(network.gradients, network.seed)
        return gauss_newton_factor(model, layers, chosen, network.loss)

    return factor_quadratics(network, curvature, rows)


def gauss_newton_factor(model: nn.Module, layers: Sequence[Layer], samples: Samples, loss: Loss) -> Tensor:
    """`X [N k, p]` with `X'X / (N k) = 1/N sum_s J_s' B_s J_s`, in double precision; k outputs a sample.

    `J_s` are the derivatives of the outputs of sample s by the weights of all layers, one after the other,
    each flattened row by row, without biases; `B_s = d2L/do2`. A sample has k rows, `sqrt(k) B_s^1/2 J_s`.
    Of the squared error they are the output gradients `dF/dw` (Hassibi & Stork 1992, equations 8 to 10), of
    other losses those scaled by `d2L/do2` (Hassibi, Stork & Wolff 1994, for the cross entropy).

    Args:
        model: network in evaluation mode; its layers' weights are made to require gradients.
        layers: layers of `model`.
        samples: N inputs and targets.
        loss: of outputs and targets.

    Raises:
        ValueError: if it does not fit into memory, a sample has no such derivatives, or too many outputs.
    """
    outputs, p = outputs_of(model, samples), sum(layer.size for layer in layers)
    require_memory(len(samples) * outputs, p, f"{len(samples)} samples by {outputs} outputs")
    X = torch.empty(len(samples) * outputs, p, dtype=torch.float64, device=samples.device)
    done = 0
    for rows in rooted_jacobians(model, layers, samples, loss):
        X[done : done + rows.shape[0] * outputs] = rows.reshape(-1, p)
        done += rows.shape[0] * outputs
    X *= outputs**0.5
    return X


def rooted_jacobians(
    model: nn.Module, layers: Sequence[Layer], samples: Samples, loss: Loss
) -> Iterator[Tensor]:
    """`B_s^1/2 J_s` of all samples, batch by batch: `[batch, k, p]` for k outputs and p weights.

    `B_s^1/2` is any square root of the loss's curvature by the outputs, of which the negative part is left
    out: there is none of a convex loss.

    Args:
        model: network in evaluation mode; its layers' weights are made to require gradients.
        layers: layers of `model`.
        samples: inputs and targets.
        loss: of outputs and targets.

    Raises:
        ValueError: if a sample has no such derivatives, or too many outputs.
    """
    leaves = Leaves(layers)
    outputs, p = outputs_of(model, samples), sum(layer.size for layer in layers)

    def root(output: Tensor, B: Tensor) -> Tensor:
        """Columns of a square root of the loss's positive curvature, `[outputs, ...]`."""
        values, vectors = torch.linalg.eigh(B.reshape(output.numel(), -1))
        columns: Tensor = (vectors * values.clamp(min=0).sqrt()).T
        return columns.reshape(-1, *output.shape)

    def single(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        output, pull, *_ = vjp(lambda w: functional(model, w, x[None])[0], parameters)
        B = jacrev(jacrev(lambda o: single_loss(loss, o[None], y[None])))(output)
        (columns,) = vmap(pull)(root(output, B))
        return columns  # type: ignore[no-any-return]

    parameters = leaves.named()
    by_vmap = vmap(single, in_dims=(None, 0, 0))

    def together(inputs: Tensor, targets: Tensor) -> Tensor:
        parts = by_vmap(parameters, inputs, targets)
        return leaves.flat([parts[name] for name in parameters], over=2)

    def alone(x: Tensor, y: Tensor) -> Tensor:
        output = answer(model, x)
        B = hessian(lambda o: single_loss(loss, o, y), output.detach())  # type: ignore[no-untyped-call]
        pulled = [gradients(output, leaves.tensors, column) for column in root(output, B)]
        return torch.stack([leaves.flat(parts) for parts in pulled])

    each = Each(together, alone)
    for inputs, targets in samples.batches(max(1, at_once(CHUNK) // (outputs * p))):
        yield each(inputs, targets).detach()


def outputs_of(model: nn.Module, samples: Samples) -> int:
    """How many outputs a sample has.

    Raises:
        ValueError: if a matrix of them is too large.
    """
    with torch.no_grad():
        outputs = int(answer(model, samples.first(1)).numel())
    if outputs > WIDEST:
        raise ValueError(
            f"the Gauss-Newton matrix needs the loss's curvature by all {outputs} outputs of a sample, its "
            f"limit is {WIDEST}; take another method"
        )
    return outputs
