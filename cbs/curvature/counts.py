"""The layer Gram of an Embedding: how often every token stands in a sample.

A place of token t puts out its vector `e_t`, a row of the weight. When the rows move by `D`, the output's
squared change, summed over the places of a sample, is `sum_t c_t |D_t|^2` in the mean, `c_t` the mean count
of t in a sample: the Gram of row t is `c_t I`. So weights do not interact: the model is separable (a
diagonal), its best mask is a sort within each pool of the budget, and no survivor has anything to make up
for. Where a padding mask says so, places that are padding do not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from cbs.change import array, layer_weights
from cbs.network.answers import answer
from cbs.network.layers import Layer, visiting
from cbs.network.padding import real_places
from cbs.quadratic import Diagonal, Quadratic, absolute_damping
from solvers.problem import Mask

if TYPE_CHECKING:
    from cbs.network.network import Network


def counted(layer: Layer, x: Tensor, y: Tensor) -> Tensor:
    """`[m]` at how many places of an input every token stands, in double precision."""
    return torch.bincount(x.flatten().long(), minlength=layer.shape[0]).double()


def token_quadratic(index: int, layer: Layer, counts: Tensor, damping: float, earlier: Mask) -> Quadratic:
    """An Embedding's model `1/2 sum_t (c_t + c) |D_t|^2`.

    Args:
        index: place of the layer in the network.
        layer: the dense layer.
        counts: `[m]` mean counts of tokens in a sample.
        damping: c, relative to the mean of the counts over tokens; absolute where that is zero.
        earlier: `[m, n]`, True where pruned before.
    """
    values = array(counts)
    added = absolute_damping(float(values.mean()), damping)
    H = Diagonal(np.broadcast_to((values + added)[:, None], layer.shape))
    return Quadratic(range(index, index + 1), (layer_weights(layer),), H, (earlier,), layer.name, added)


def paired_tokens(network: Network, index: int, pruned: nn.Module, damping: float) -> Quadratic:
    """An Embedding's model on the tokens that it has in a pruned network: those of the dense one.

    Raises:
        ValueError: if they are others, as where a network makes its tokens itself.
    """
    layer = network.layers[index]
    total = torch.zeros(layer.shape[0], dtype=torch.float64, device=layer.weight.device)
    dense: list[Tensor] = []
    found: list[Tensor] = []

    def keep(name: str, x: Tensor, y: Tensor) -> None:
        dense.append(x.clone())
        total.add_(counted(layer, *real_places(layer, x, y)))

    def keep_found(name: str, x: Tensor, y: Tensor) -> None:
        found.append(x.clone())

    with torch.no_grad(), visiting([layer], keep), visiting([layer.of(pruned)], keep_found):
        for inputs, _ in network.samples.batches():
            dense.clear()
            found.clear()
            answer(network.model, inputs.clone())
            answer(pruned, inputs)
            if len(dense) != len(found) or not all(map(torch.equal, dense, found)):
                raise ValueError(
                    f"layer {layer.name!r}: its tokens hang on layers that were pruned before it; take "
                    "pipeline 'one-shot', or leave it out with `layers`"
                )
    return token_quadratic(index, layer, total / len(network.samples), damping, network.earlier[index])
