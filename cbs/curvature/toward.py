"""Gradients toward the dense network's outputs: what a stage's re-linearisation adds to its curvature.

A network that a stage of pruning left is no minimum of anything: its outputs are off, and so are those of its
layers. The quadratic models of the next stage therefore have a gradient, of the divergence of the network's
outputs from the dense ones, or of what every layer by itself misses of its dense output. CHITA++ has the
first kind with labels (Benbaki et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cbs.change import array
from cbs.curvature.each import differentiating, gradients
from cbs.curvature.stored import OneByOne
from cbs.data import Samples
from cbs.network.answers import answer
from cbs.network.evaluate import evaluating, forward
from cbs.network.layers import never_ran, visiting
from cbs.network.leaves import Leaves
from cbs.network.losses import wide
from cbs.network.padding import real_places
from cbs.quadratic import Diagonal, Quadratic
from solvers.hessian import Array

if TYPE_CHECKING:
    from cbs.network.network import Network


def drawn_to_outputs(network: Network, models: Sequence[Quadratic]) -> Sequence[Quadratic]:
    """Layer models of `1/2 E|V z - W x|^2 + c/2 |V - V_0|^2`: present inputs z, dense weights W and inputs x.

    For a move `D` from the present weights `V_0` that is the joint model with `H = E[z z'] + c I` and the
    gradient `G = E[(V_0 z - W x) z']`.

    Args:
        network: with a reference, the dense network.
        models: of its layers' Grams, damped, one a layer.
    """
    slopes = output_gradients(network)
    if isinstance(models, OneByOne):
        return models.map(lambda i, model: _with(model, slopes[i]))
    return [_with(model, slopes[i]) for i, model in enumerate(models)]


def drawn_by_divergence(network: Network, models: Sequence[Quadratic]) -> list[Quadratic]:
    """Models of per-sample curvatures with the gradient of the divergence, `G = E[J'(p - p_dense)]`.

    Args:
        network: with a reference, the dense network.
        models: flat ones, of its layers or of all of them.
    """
    slopes = divergence_gradients(network)
    return [_with(m, np.concatenate([slopes[i].ravel() for i in m.index])[None, :]) for m in models]


def _with(model: Quadratic, slope: Array) -> Quadratic:
    """A model with a gradient; weights pruned before have none, as they never move.

    Nor have vectors of tokens, whose survivors are the dense ones.
    """
    if isinstance(model.H, Diagonal):
        return model
    slope = slope.copy()
    slope[model.join(model.earlier)] = 0.0
    return replace(model, gradient=slope)


def output_gradients(network: Network) -> list[Array]:
    """Every layer's `1/N sum (V z - W x) z'`, `[m, n]`, or `[m, n + 1]` with a bias that moves.

    `V z` is the layer's output in the network, `W x` that in the reference, summed over positions. One pass
    of each network over the data does for all layers.

    Raises:
        ValueError: if a layer does not run.
    """
    assert network.reference is not None
    dense = network.reference.network
    sums: dict[str, Tensor] = {}
    outputs: dict[str, list[Tensor]] = {}
    by_name = {layer.name: layer for layer in network.layers}
    N = len(network.samples)

    def keep(name: str, x: Tensor, y: Tensor) -> None:
        _, y = real_places(by_name[name], x, y)
        outputs.setdefault(name, []).append(y.clone())  # the network may change it in place later in the pass

    def compare(name: str, z: Tensor, y: Tensor) -> None:
        layer, done = by_name[name], 0
        if layer.tokens:
            sums[name] = z.new_zeros(layer.shape, dtype=torch.float64)
            return
        z, y = real_places(layer, z, y)
        off = layer.flatten(y.double() - outputs[name].pop(0).double())
        for Z in layer.parts(z, y):
            product = off[done : done + len(Z)].T @ Z
            done += len(Z)
            sums[name] = sums[name].add_(product) if name in sums else product

    with torch.no_grad(), visiting(dense.layers, keep), visiting(network.layers, compare):
        for inputs, _ in network.samples.batches():
            answer(dense.model, inputs.clone())
            answer(network.model, inputs)
    for name in by_name:
        if name not in sums:
            raise never_ran(name)
    return [array(sums.pop(name)) / N for name in by_name]


def divergence_gradients(network: Network) -> list[Array]:
    """Every layer's mean gradient of the divergence from the reference's outputs, `[m, n]`; biases left out.

    It is that of the network refit: of the Kullback-Leibler divergence `E[J'(p - p_dense)]`, `J` the
    derivatives of the logits; or of the loss on labels where that was asked for.

    Raises:
        ValueError: if the network can't be differentiated.
    """
    assert network.reference is not None
    divergence = network.reference.divergence
    assert divergence is not None
    model, layers, samples = network.differentiable()
    samples = with_dense_outputs(network, samples) if divergence.dense else samples
    leaves = Leaves(layers)
    sums = [torch.zeros(layer.shape, dtype=torch.float64, device=samples.device) for layer in layers]
    for inputs, known in samples.batches():
        with differentiating(), torch.enable_grad():
            outputs = answer(model, inputs)
            slope = divergence.gradient(outputs.detach(), known)
            found = leaves.parts(gradients((outputs * slope).sum(), leaves.tensors))
        for total, part in zip(sums, found, strict=True):
            total += part.double().reshape(total.shape)
    return [array(total) / len(samples) for total in sums]


@torch.no_grad()
def with_dense_outputs(network: Network, samples: Samples) -> Samples:
    """Samples of a network with its reference's outputs for targets."""
    assert network.reference is not None
    dense = network.reference.network.model
    with evaluating(dense):
        return samples.aligned(network.samples.answered(lambda x: wide(forward(dense, x))))
