"""Per-sample gradients: the factor of the empirical Fisher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from cbs.curvature.base import Fisher, PerSample
from cbs.curvature.each import Each, gradients
from cbs.data import Samples
from cbs.memory import at_once, free_memory
from cbs.network.answers import answer, functional
from cbs.network.layers import Layer
from cbs.network.leaves import Leaves
from cbs.network.losses import Loss, single_loss
from cbs.quadratic import Quadratic, absolute_damping
from solvers import FactorHessian
from solvers.hessian import Array

if TYPE_CHECKING:
    from cbs.network.network import Network

CHUNK = 2**24
"""Largest number of gradient entries in flight."""


def fisher_quadratics(network: Network, fisher: Fisher) -> list[Quadratic]:
    """The models `1/2 D F D'` of a damped `Fisher`: one of all layers, or a block a layer."""

    def rows() -> Tensor:
        model, layers, samples = network.differentiable()
        return gradient_factor(model, layers, samples.choose(network.gradients, network.seed), network.loss)

    return factor_quadratics(network, fisher, rows)


def factor_quadratics(network: Network, curvature: PerSample, rows: Callable[[], Tensor]) -> list[Quadratic]:
    """The models `1/2 D H D'`, `H = X'X / N + c I`, of a factor X: one of all layers, or a block a layer.

    Weights that were pruned before have no part in it.

    Args:
        network: the dense network.
        curvature: damped.
        rows: makes `X [N, p]` of all layers' weights, one layer after the other; may be written to.
    """
    assert curvature.damping is not None
    earlier, sizes = network.earlier, [layer.size for layer in network.layers]
    if curvature.whole:
        X = rows()
        X[:, torch.from_numpy(np.concatenate([mask.ravel() for mask in earlier])).to(X.device)] = 0.0
        factor = X.detach().cpu().numpy()
        network.checked(np.split(factor, np.cumsum(sizes)[:-1], axis=1))
        name = network.layers[0].name if len(sizes) == 1 else None
        H = damped_factor(factor, curvature.damping)
        every = range(len(sizes))
        return [Quadratic(every, network.dense, H, earlier, name, H.damping, flat=True)]
    found, start = [], 0
    whole = network(replace(curvature, apart=False))[0].H
    assert isinstance(whole, FactorHessian)
    for i, (layer, dense, mask) in enumerate(zip(network.layers, network.dense, earlier, strict=True)):
        H = damped_factor(whole.X[:, np.arange(start, start + layer.size)], curvature.damping)
        found.append(Quadratic(range(i, i + 1), (dense,), H, (mask,), layer.name, H.damping, flat=True))
        start += layer.size
    return found


def damped_factor(X: Array, damping: float) -> FactorHessian:
    """The Hessian `X'X / N + c I` of a factor `[N, p]`, which must not be written to afterwards.

    `c` is `damping` times its mean diagonal.
    """
    return FactorHessian(X, absolute_damping(float(np.einsum("si,si->", X, X)) / X.size, damping))


def gradient_factor(model: nn.Module, layers: Sequence[Layer], samples: Samples, loss: Loss) -> Tensor:
    """`X [N, p]` with the empirical Fisher `F = X'X / N`, in double precision.

    Row s is the gradient of the loss of sample s with respect to the weights of all layers, one
    after the other, each flattened row by row; biases are left out (Yu et al. 2022, section 4;
    Singh & Alistarh 2020).

    Args:
        model: network in evaluation mode; its layers' weights are made to require gradients.
        layers: layers of `model`.
        samples: N inputs and targets.
        loss: of outputs and targets.

    Raises:
        ValueError: if it does not fit into memory, or a sample has no gradient.
    """
    p = sum(layer.size for layer in layers)
    require_memory(len(samples), p, f"{len(samples)} samples")
    X = torch.empty(len(samples), p, dtype=torch.float64, device=samples.device)
    done = 0
    for rows in sample_gradients(model, layers, samples, loss):
        X[done : done + len(rows)] = rows
        done += len(rows)
    return X


def sample_gradients(
    model: nn.Module, layers: Sequence[Layer], samples: Samples, loss: Loss
) -> Iterator[Tensor]:
    """The rows of `gradient_factor`, a few samples at a time: tensors `[B, p]`."""
    leaves = Leaves(layers)

    def value(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return single_loss(loss, functional(model, parameters, x[None]), y[None])

    parameters = leaves.named()
    by_vmap = vmap(grad(value), in_dims=(None, 0, 0))

    def together(inputs: Tensor, targets: Tensor) -> Tensor:
        parts = by_vmap(parameters, inputs, targets)
        return leaves.flat([parts[name] for name in parameters], over=1)

    def alone(x: Tensor, y: Tensor) -> Tensor:
        return leaves.flat(gradients(single_loss(loss, answer(model, x), y), leaves.tensors))

    each = Each(together, alone)
    for inputs, targets in samples.batches(max(1, at_once(CHUNK) // sum(layer.size for layer in layers))):
        yield each(inputs, targets)


def require_memory(N: int, p: int, rows: str) -> None:
    """Refuse a factor that, with the copy that its blocks are, is larger than the memory that is free.

    Args:
        N: rows.
        p: weights.
        rows: what the rows are, in words.
    """
    needed = 2 * 8 * N * p
    free = free_memory()
    if needed > free:
        raise ValueError(
            f"gradients of {rows} by {p} weights take {needed / 2**30:.1f} GiB of memory, and "
            f"{free / 2**30:.1f} are free; take fewer `samples`, or name smaller `layers`"
        )
