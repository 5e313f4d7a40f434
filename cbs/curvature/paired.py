"""Second moments of a layer's inputs in a pruned network, and across to those in the dense one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from torch import Tensor, nn, no_grad

from cbs.curvature.counts import paired_tokens
from cbs.curvature.gram import layer_quadratic
from cbs.data import Samples
from cbs.network.answers import answer
from cbs.network.layers import Layer, visiting
from cbs.network.padding import real_places
from cbs.quadratic import Quadratic

if TYPE_CHECKING:
    from cbs.network.network import Network

KEPT = "_paired_moments"
"""Attribute of a network that is being pruned: moments of blocks that have not been asked for yet."""


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
    if layer.tokens:
        return paired_tokens(network, index, pruned, damping)
    runs = network.memo("runs", lambda: _runs(network))[layer.name]
    if layer.blocks == 1:
        (found,) = paired_moments(network.model, pruned, [layer], network.samples, runs)
    else:
        found = _of_block(network, layer, pruned, runs)
    return layer_quadratic(index, layer, found[0], damping, network.earlier[index], found[1])


def _of_block(
    network: Network, layer: Layer, pruned: nn.Module, runs: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """A block's moments: those of all blocks of a module are had in one pass, as none feeds another."""
    kept: dict[str, tuple[Tensor, Tensor]] = vars(pruned).setdefault(KEPT, {})
    if layer.name not in kept:
        blocks = [other for other in network.layers if other.path == layer.path]
        moments = paired_moments(network.model, pruned, blocks, network.samples, runs)
        kept.update(zip((block.name for block in blocks), moments, strict=True))
    return kept.pop(layer.name)


def paired_moments(
    dense: nn.Module,
    pruned: nn.Module,
    layers: Sequence[Layer],
    samples: Samples,
    runs: Sequence[int] | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """`K = 1/N sum z z'` and `C = 1/N sum x z'`: inputs `z` in the pruned network, `x` in the dense one.

    With weights V the pruned network's layer misses the dense one's output by
    `E|V z - W x|^2 = V K V' - 2 W C V' + const`, row by row. Sums over positions, in double
    precision; with a bias both inputs end in a 1.

    Args:
        dense: the dense network, in evaluation mode.
        pruned: the same network, partly pruned.
        layers: of the dense network.
        samples: N inputs; streamed in batches.
        runs: how often the layers run in every batch, after which a pass is broken off; None to go through
            with each.

    Returns:
        For every layer its two matrices.
    """
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    inputs: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    own = {layer.name: layer for layer in layers}
    theirs = {layer.name: layer.of(pruned) for layer in layers}
    end = layers[-1].name  # blocks of a module are visited in their order
    last = 0  # run of the layers in this batch

    def keep(name: str, x: Tensor, y: Tensor) -> None:
        x, _ = real_places(own[name], x, y)
        inputs[name].append(x.clone())  # the network may change it in place later in the pass
        if name == end and len(inputs[name]) == last:
            raise _Enough

    def pair(name: str, z: Tensor, y: Tensor) -> None:
        z, y = real_places(theirs[name], z, y)
        for X, Z in zip(own[name].parts(inputs[name].pop(0), y), theirs[name].parts(z, y), strict=True):
            if name not in sums:
                sums[name] = Z.new_zeros(Z.shape[1], Z.shape[1]), Z.new_zeros(Z.shape[1], Z.shape[1])
            sums[name][0].addmm_(Z.T, Z, alpha=1.0 / len(samples))
            sums[name][1].addmm_(X.T, Z, alpha=1.0 / len(samples))
        if name == end and last and not inputs[name]:
            raise _Enough

    with no_grad(), visiting(layers, keep), visiting([*theirs.values()], pair):
        for i, (batch, _) in enumerate(samples.batches()):
            last = 0 if runs is None else runs[i]
            for network, given in ((dense, batch.clone()), (pruned, batch)):
                with suppress(_Enough):
                    answer(network, given)
    return [sums[layer.name] for layer in layers]


def _runs(network: Network) -> dict[str, list[int]]:
    """How often every layer runs in every batch."""
    found: dict[str, list[int]] = {layer.name: [] for layer in network.layers}

    def count(name: str, x: Tensor, y: Tensor) -> None:
        found[name][-1] += 1

    with no_grad(), visiting(network.layers, count):
        for batch, _ in network.samples.batches():
            for counts in found.values():
                counts.append(0)
            answer(network.model, batch)
    return found


class _Enough(Exception):
    """The layer has run as often as it does in a pass; what comes after it is of no interest."""
