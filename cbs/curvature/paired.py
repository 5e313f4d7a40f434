"""Second moments of a layer's inputs in a pruned network, and across to those in the dense one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn, no_grad

from cbs.curvature.gram import layer_quadratic
from cbs.data import Samples
from cbs.network.answers import answer
from cbs.network.layers import Layer, visiting
from cbs.network.padding import real_places
from cbs.quadratic import Quadratic

if TYPE_CHECKING:
    from cbs.network.network import Network


def paired_quadratic(network: Network, index: int, pruned: nn.Module, damping: float) -> Quadratic:
    """A layer's model of `E|V z - W x|^2 + c |V - W|^2`: z its input in a pruned network, x in the dense one.

    For a move `D` of its weights that is the joint model with `H = K + c I` and the gradient `G = W (K - C)`,
    `K = E[z z']` and `C = E[x z']`.

    Args:
        network: the dense network.
        index: place of the layer.
        pruned: a copy of the network, partly pruned.
        damping: `c`, relative to the mean diagonal of the weights' part of K.
    """
    layer = network.layers[index]
    K, C = paired_moments(network.model, pruned, (layer, layer.of(pruned)), network.samples)
    return layer_quadratic(index, layer, K, damping, network.earlier[index], C)


def paired_moments(
    dense: nn.Module, pruned: nn.Module, layers: tuple[Layer, Layer], samples: Samples
) -> tuple[Tensor, Tensor]:
    """`K = 1/N sum z z'` and `C = 1/N sum x z'`: inputs `z` in the pruned network, `x` in the dense one.

    With weights V the pruned network's layer misses the dense one's output by
    `E|V z - W x|^2 = V K V' - 2 W C V' + const`, row by row. Sums over positions, in double
    precision; with a bias both inputs end in a 1.

    Args:
        dense: the dense network, in evaluation mode.
        pruned: the same network, partly pruned.
        layers: the layer in the dense network and in the pruned one.
        samples: N inputs; streamed in batches.
    """
    sums: list[Tensor] = []
    inputs: list[Tensor] = []

    def keep(name: str, x: Tensor, y: Tensor) -> None:
        x, _ = real_places(layers[0], x, y)
        inputs.append(x.clone())  # the network may change it in place later in the pass

    def pair(name: str, z: Tensor, y: Tensor) -> None:
        z, y = real_places(layers[1], z, y)
        for X, Z in zip(layers[0].parts(inputs.pop(0), y), layers[1].parts(z, y), strict=True):
            if not sums:
                sums.extend(Z.new_zeros(Z.shape[1], Z.shape[1]) for _ in range(2))
            sums[0].addmm_(Z.T, Z, alpha=1.0 / len(samples))
            sums[1].addmm_(X.T, Z, alpha=1.0 / len(samples))

    with no_grad(), visiting(layers[:1], keep), visiting(layers[1:], pair):
        for batch, _ in samples.batches():
            answer(dense, batch.clone())
            answer(pruned, batch)
    return sums[0], sums[1]
