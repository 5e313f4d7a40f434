"""The layer Gram: how much a layer's output moves, squared, when its weights do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from cbs.change import array, layer_weights
from cbs.curvature.counts import counted, token_quadratic
from cbs.data import Samples
from cbs.memory import limit
from cbs.network.answers import answer
from cbs.network.layers import Layer, never_ran, visiting
from cbs.network.padding import real_places
from cbs.quadratic import Quadratic, absolute_damping
from solvers.problem import Mask

if TYPE_CHECKING:
    from cbs.network.network import Network

SHARE = 0.1
"""Of the memory that is left: what the Grams of all layers may take together; others are kept on disk."""
COPIES = 5
"""Matrices of a layer's inputs that its model, its problem and a search hold at once."""
CHUNK = 2**20
"""Largest number of a convolution's inputs held in double precision: few enough for a processor's cache."""


def gram_quadratics(network: Network, damping: float) -> Sequence[Quadratic]:
    """Every layer's model `1/2 sum_r D_r H D_r'`, from its damped Gram.

    Where all of them would take more than a share of the memory that is left, they are kept on disk, see
    `cbs.curvature.stored`.

    Raises:
        ValueError: if a layer does not run, or has too many inputs for its Gram to fit into memory.
    """
    sizes, left = [gram_bytes(layer) for layer in network.layers], limit().left
    _require_room(network.layers, left)
    if sum(sizes) > SHARE * left:
        from cbs.curvature.stored import stored_quadratics

        return stored_quadratics(network, damping, SHARE * left)
    grams = layer_grams(network.model, network.layers, network.samples)
    idle = [layer.name for layer in network.layers if layer.name not in grams]
    if idle:
        raise never_ran(idle[0])
    return [
        layer_quadratic(i, layer, grams[layer.name], damping, mask)
        for i, (layer, mask) in enumerate(zip(network.layers, network.earlier, strict=True))
    ]


def gram_bytes(layer: Layer) -> int:
    """Bytes of a layer's Gram; of tokens a number each."""
    if layer.tokens:
        return 8 * layer.shape[0]
    return 8 * (layer.shape[1] + int(layer.bias is not None)) ** 2


def _require_room(layers: Sequence[Layer], left: float) -> None:
    """Refuse layers of whose Gram some copies do not fit into the memory that is left, the widest first."""
    widest = max(layers, key=gram_bytes)
    needed = COPIES * gram_bytes(widest)
    if needed > left:
        raise ValueError(
            f"layer {widest.name!r} has {widest.shape[1]} inputs, and {COPIES} matrices of these take "
            f"{needed / 2**30:.1f} GiB of memory, of which {left / 2**30:.1f} are left; give `memory` more, "
            "or leave the layer out with `layers`"
        )


def layer_quadratic(
    index: int, layer: Layer, gram: Tensor, damping: float, earlier: Mask, across: Tensor | None = None
) -> Quadratic:
    """A layer's model from second moments of its inputs.

    Args:
        index: place of the layer in the network.
        layer: the dense layer.
        gram: `E[z z']`, `[n, n]` or, with a bias, `[n + 1, n + 1]`; of tokens their counts, `[m]`.
        damping: added to the diagonal of the weights' part, relative to its mean; absolute where that mean is
            zero (a layer whose inputs are all zero).
        earlier: `[m, n]`, True where pruned before.
        across: `E[x z']` where the inputs x of the dense layer are others: the model is then that of
            `E|V z - W x|^2`, whose gradient at `V = W` is `W (E[z z'] - E[x z'])`.
    """
    if layer.tokens:
        return token_quadratic(index, layer, gram, damping, earlier)
    dense, H, n = layer_weights(layer), array(gram), layer.shape[1]
    added = absolute_damping(float(np.diagonal(H)[:n].mean()), damping)
    H[np.arange(n), np.arange(n)] += added
    gradient = None
    if across is not None:
        gradient = dense.augmented @ array(gram - across)
        gradient[:, :n][earlier] = 0.0  # such a weight never moves
    return Quadratic(
        range(index, index + 1), (dense,), H, (earlier,), layer.name, added,
        bias=dense.bias is not None, gradient=gradient,
    )  # fmt: skip


def layer_grams(model: nn.Module, layers: Sequence[Layer], samples: Samples) -> dict[str, Tensor]:
    """`H = 1/N sum_samples sum_positions x x'` of every layer, in double precision.

    `1/2 sum_r D_r H D_r'` is half the mean squared change of the layer's output, summed over its
    positions, when its weights move by `D`. With a bias `x` ends in a 1, and so the bias is the
    last column of `D`. A layer that runs more than once a pass counts every run.

    Args:
        model: network in evaluation mode.
        layers: layers of `model`.
        samples: N inputs; streamed in batches.

    Returns:
        For every layer's name `[n, n]`, or `[n + 1, n + 1]` with a bias; of tokens `[m]`, how often each
        stands in a sample.
    """
    grams: dict[str, Tensor] = {}
    by_name = {layer.name: layer for layer in layers}

    def visit(name: str, x: Tensor, y: Tensor) -> None:
        layer = by_name[name]
        if not x.numel():
            return  # of no sample at all, as of an expert to which none is sent
        products: Iterable[Tensor]
        if layer.tokens:
            products = [counted(layer, *real_places(layer, x, y))]
        elif isinstance(layer.module, nn.Conv2d):
            x = x.reshape(-1, *x.shape[-3:])
            size = layer.padded(x[:1]).numel() * layer.module.kernel_size[1]
            parts = torch.split(x, max(1, CHUNK // size))
            products = (image_products(layer, part) for part in parts)
        else:
            products = (X.T @ X for X in layer.parts(*real_places(layer, x, y)))
        for H in products:
            grams[name] = grams[name].add_(H) if name in grams else H

    with torch.no_grad(), visiting(layers, visit):
        for inputs, _ in samples.batches():
            answer(model, inputs)
    return {
        name: grams.pop(name) / len(samples) for name in list(grams)
    }  # in place fails after inference mode


def image_products(layer: Layer, x: Tensor) -> Tensor:
    """`sum x x'` over the patches of images `[N, C, height, width]`, without forming the patches.

    Patches are unfolded along the width alone, into `V [C * kw, rows, N * positions]`. Row i of one
    patch's window and row i' of another's meet in a product of two slices of V; where windows move by
    one row, pairs of the same distance `i' - i` share it but for a few rows at the ends.
    """
    module = layer.module
    assert isinstance(module, nn.Conv2d)
    (kh, kw), (dh, dw), (sh, sw) = module.kernel_size, module.dilation, module.stride
    x = layer.padded(x.double())
    _, C, rows, width = x.shape
    height = (rows - dh * (kh - 1) - 1) // sh + 1
    end = width - dw * (kw - 1)
    shifted = [x[..., dw * j : dw * j + end : sw] for j in range(kw)]
    V = torch.stack(shifted, dim=1).permute(2, 1, 3, 0, 4).reshape(C * kw, rows, -1)

    def product(start: int, stop: int, apart: int) -> Tensor:
        A, B = V[:, start:stop:sh], V[:, start + apart : stop + apart : sh]
        return A.flatten(1) @ B.flatten(1).T

    H = x.new_empty(C, kh, kw, C, kh, kw)
    for step in range(kh):
        apart = dh * step
        ends = dh * (kh - 1) - apart
        shared = sh == 1 and ends <= height
        core = product(ends, height, apart) if shared else None
        for i in range(kh - step):
            start = dh * i
            if core is None:
                block = product(start, start + sh * (height - 1) + 1, apart)
            else:
                block = core + product(start, ends, apart) + product(height, height + start, apart)
            H[:, i, :, :, i + step, :] = block.reshape(C, kw, C, kw)
            H[:, i + step, :, :, i, :] = block.T.reshape(C, kw, C, kw)
    if layer.across:
        H = H.permute(1, 2, 0, 4, 5, 3)
    H = H.reshape(C * kh * kw, -1)
    if layer.bias is None:
        return H
    sums = V.sum(dim=2)
    windows = [sums[:, dh * i : dh * i + sh * (height - 1) + 1 : sh].sum(dim=1) for i in range(kh)]
    places = torch.stack(windows, dim=1).reshape(C, kw, kh)
    ones = (places.permute(2, 1, 0) if layer.across else places.transpose(1, 2)).reshape(-1, 1)
    positions = H.new_full((1, 1), V.shape[2] * height)
    return torch.cat([torch.cat([H, ones], dim=1), torch.cat([ones.T, positions], dim=1)])
