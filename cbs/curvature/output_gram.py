"""Second moments of the outputs' derivatives, row by row: the Gauss-Newton matrix of the network's outputs.

With `J_ki` the derivative of output k by the weights and the bias of row i, a row's matrix is
`H_i = E sum_k J_ki J_ki'`. A row that has one position a sample has `J_ki = (dy_k/da_i) z`, z the layer's
input with a 1 for the bias, and so `H_i = E[omega_i z z']`, `omega_i = sum_k (dy_k/da_i)^2` (Ballini et al.
2026). Where weights are shared by positions, as in a convolution, `J_ki` is the sum over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cbs.change import array
from cbs.curvature.each import differentiating, gradients
from cbs.data import BATCH, Samples
from cbs.memory import at_once, free_memory
from cbs.network.answers import answer
from cbs.network.layers import Layer, never_ran, visiting
from cbs.quadratic import Diagonal, Quadratic, absolute_damping
from solvers.hessian import Array

if TYPE_CHECKING:
    from cbs.network.network import Network

CHUNK = 2**24
"""Largest number of unfolded inputs, or of derivatives by a layer's weights, in flight."""
WIDEST = 8_192
"""Most outputs of a sample: each takes a pass back through the network."""
COPIES = 4
"""Of a row's matrices that are held at once while a problem is made of them."""


def output_quadratics(network: Network, damping: float) -> list[Quadratic]:
    """Every layer's model `1/2 sum_r D_r H_r D_r'`, a damped matrix a row, with the bias as last column.

    A bias that the outputs do not see has curvature one instead of zero, which leaves it where it is.

    Raises:
        ValueError: if the matrices do not fit into memory, or the outputs have no derivatives.
    """
    _require_memory(network.layers)
    model, layers, samples = network.differentiable()
    found = {layer.name: _Matrices(layer) for layer in layers}
    accumulate_derivatives(model, layers, samples, found)
    H = [array(found[layer.name].H) / len(samples) for layer in layers]
    network.checked([np.diagonal(h, axis1=1, axis2=2) for h in H], "outputs have")
    return [_quadratic(network, i, h, damping) for i, h in enumerate(H)]


def _quadratic(network: Network, index: int, H: Array, damping: float) -> Quadratic:
    layer, n = network.layers[index], network.layers[index].shape[1]
    if layer.bias is not None:
        H[:, n, n] = np.where(H[:, n, n] > 0.0, H[:, n, n], 1.0)
    means = np.diagonal(H, axis1=1, axis2=2)[:, :n].mean(axis=1)
    added = np.array([absolute_damping(float(mean), damping) for mean in means])
    H[:, np.arange(n), np.arange(n)] += added[:, None]
    return Quadratic(
        range(index, index + 1), (network.dense[index],), H, (network.earlier[index],), layer.name, added,
        bias=layer.bias is not None,
    )  # fmt: skip


def output_diagonals(network: Network) -> list[Quadratic]:
    """Every layer's model of weights that do not interact, each with its own bias.

    A weight's curvature is `H_jj - H_jb^2 / H_bb`, that is `E[omega] Var_omega(z_j)`, and its bias's shift
    `H_jb / H_bb = E[omega z_j] / E[omega]`; without a bias that may move it is `H_jj = E[omega z_j^2]`.

    Raises:
        ValueError: if the outputs have no derivatives.
    """
    model, layers, samples = network.differentiable()
    found = {layer.name: _Diagonals(layer) for layer in layers}
    accumulate_derivatives(model, layers, samples, found)
    squares = [array(found[layer.name].squares) / len(samples) for layer in layers]
    network.checked(squares, "outputs have")
    models = []
    for i, (layer, values) in enumerate(zip(network.layers, squares, strict=True)):
        n, H = layer.shape[1], Diagonal(values)
        if layer.bias is not None:
            across = array(found[layer.name].across) / len(samples)
            corner = np.where(across[:, n] > 0.0, across[:, n], 1.0)
            shifts = across[:, :n] / corner[:, None]
            H = Diagonal(np.maximum(values[:, :n] - shifts * across[:, :n], 0.0), shifts, corner)
        models.append(
            Quadratic(
                range(i, i + 1), (network.dense[i],), H, (network.earlier[i],), layer.name,
                bias=layer.bias is not None,
            )
        )  # fmt: skip
    return models


class Sums(Protocol):
    """What is added up over samples of a layer's derivatives."""

    def weighted(self, omega: Tensor, Z: Tensor) -> None:
        """Take in samples of one position: `omega [B, m]` and inputs `Z [B, n]`."""

    def whole(self, G: Tensor) -> None:
        """Take in derivatives of one output, `[B, m, n]`."""


class _Matrices:
    """`H [m, n, n]`, the sum of `J_ki J_ki'`."""

    def __init__(self, layer: Layer) -> None:
        (m, n), bias = layer.shape, int(layer.bias is not None)
        where = layer.weight.device
        self.H = torch.zeros(m, n + bias, n + bias, dtype=torch.float64, device=where)

    def weighted(self, omega: Tensor, Z: Tensor) -> None:
        """See `Sums.weighted`."""
        for H, row in zip(self.H, omega.sqrt().T, strict=True):
            X = row[:, None] * Z
            H.addmm_(X.T, X)

    def whole(self, G: Tensor) -> None:
        """See `Sums.whole`."""
        self.H.baddbmm_(G.permute(1, 2, 0), G.transpose(0, 1))


class _Diagonals:
    """The sums of `J_kij^2` and of `J_kij J_kib`, `[m, n]` with the bias as last column."""

    def __init__(self, layer: Layer) -> None:
        (m, n), bias = layer.shape, int(layer.bias is not None)
        self.squares, self.across = (
            torch.zeros(m, n + bias, dtype=torch.float64, device=layer.weight.device) for _ in range(2)
        )

    def weighted(self, omega: Tensor, Z: Tensor) -> None:
        """See `Sums.weighted`."""
        self.squares.addmm_(omega.T, Z * Z)
        self.across.addmm_(omega.T, Z)  # the last entry of Z, if there is a bias, is 1

    def whole(self, G: Tensor) -> None:
        """See `Sums.whole`."""
        self.squares += (G * G).sum(dim=0)
        self.across += (G * G[..., -1:]).sum(dim=0)


def accumulate_derivatives(
    model: nn.Module, layers: Sequence[Layer], samples: Samples, sums: Mapping[str, Sums]
) -> None:
    """Add up what every layer's sums take of the derivatives of the outputs, in double precision.

    Args:
        model: network in evaluation mode, whose answers to samples do not depend on each other.
        layers: layers of `model`.
        samples: N inputs; streamed in batches.
        sums: of every layer by name.

    Raises:
        ValueError: if the network can't be differentiated, has too many outputs, a layer never runs, or a
            layer's input does not have the samples first.
    """
    size = _batch(model, layers, samples)
    for inputs, _ in samples.batches(size):
        runs: dict[str, list[tuple[Tensor, Tensor]]] = {layer.name: [] for layer in layers}

        def visit(
            name: str, x: Tensor, y: Tensor, runs: dict[str, list[tuple[Tensor, Tensor]]] = runs
        ) -> Tensor:
            runs[name].append((x.detach().clone(), y if y.requires_grad else y.requires_grad_()))
            return y.clone()

        with differentiating(), torch.enable_grad(), visiting(layers, visit):
            outputs = answer(model, inputs).flatten(1)
            ran = {
                name: [*pairs] for name, pairs in runs.items()
            }  # checkpoints run layers again on the way back
            parts = {
                layer.name: _Part(layer, len(inputs), ran[layer.name], sums[layer.name]) for layer in layers
            }
            for k in range(outputs.shape[1]):
                found = iter(gradients(outputs[:, k].sum(), [y for pairs in ran.values() for _, y in pairs]))
                for part in parts.values():
                    part.take([next(found) for _ in part.inputs])
        for part in parts.values():
            part.close()


class _Part:
    """A batch's inputs of a layer, and what its outputs' derivatives add to the sums."""

    def __init__(self, layer: Layer, count: int, runs: Sequence[tuple[Tensor, Tensor]], sums: Sums) -> None:
        for x, _ in runs:
            require_samples_first(layer, x, count)
        self.layer, self.count, self.sums = layer, count, sums
        self.inputs = [layer.augmented(x).reshape(count, -1, sums_width(layer)) for x, _ in runs]
        self.single = len(self.inputs) == 1 and self.inputs[0].shape[1] == 1
        self.omega: Tensor | None = None

    def take(self, slopes: Sequence[Tensor]) -> None:
        """Take in the derivatives of one output by the layer's, run by run."""
        by_position = [
            self.layer.flatten(g).double().reshape(self.count, -1, self.layer.shape[0]) for g in slopes
        ]
        if self.single:
            square = by_position[0][:, 0].square()
            self.omega = square if self.omega is None else self.omega.add_(square)
            return
        step = max(1, at_once(CHUNK) // (self.layer.shape[0] * sums_width(self.layer)))
        for start in range(0, self.count, step):
            part = slice(start, start + step)
            pairs = zip(by_position, self.inputs, strict=True)
            self.sums.whole(torch.stack([g[part].transpose(1, 2) @ Z[part] for g, Z in pairs]).sum(dim=0))

    def close(self) -> None:
        """Add what was kept of samples of one position."""
        if self.omega is not None:
            self.sums.weighted(self.omega, self.inputs[0][:, 0])


def require_samples_first(layer: Layer, x: Tensor, count: int) -> None:
    """Refuse a layer whose input does not have the samples of a batch in its first dimension.

    Raises:
        ValueError: naming the layer and the shape.
    """
    if len(x) != count:
        raise ValueError(
            f"layer {layer.name!r} has inputs of shape {list(x.shape)} in a batch of {count}: samples must "
            "come first, to be told apart; leave it out with `layers`"
        )


def sums_width(layer: Layer) -> int:
    """A layer's inputs, with the bias if it may move."""
    return layer.shape[1] + int(layer.bias is not None)


def _batch(model: nn.Module, layers: Sequence[Layer], samples: Samples) -> int:
    """How many samples at a time: as many as their unfolded inputs allow.

    Raises:
        ValueError: if a layer never runs, or a sample has too many outputs.
    """
    entries: dict[str, int] = {}
    shapes = {layer.name: layer.shape for layer in layers}

    def visit(name: str, x: Tensor, y: Tensor) -> None:
        m, n = shapes[name]
        entries[name] = entries.get(name, 0) + y.numel() // m * n

    with torch.no_grad(), visiting(layers, visit):
        outputs = answer(model, samples.first(1)).numel()
    idle = [layer.name for layer in layers if layer.name not in entries]
    if idle:
        raise never_ran(idle[0])
    if outputs > WIDEST:
        raise ValueError(f"the outputs' derivatives {_passes(outputs)}")
    return min(BATCH, max(1, at_once(CHUNK) // sum(entries.values())))


def _passes(outputs: int) -> str:
    return (
        f"take a pass back for each of the {outputs} outputs of a sample, the limit is {WIDEST}; take method "
        "'joint', which needs none"
    )


def too_many(network: Network) -> str | None:
    """Why derivatives of a network's outputs would take too long, in words that follow a method's name."""
    with torch.no_grad():
        outputs = answer(network.model, network.samples.first(1)).numel()
    return f"needs derivatives by the outputs, which {_passes(outputs)}" if outputs > WIDEST else None


def _require_memory(layers: Sequence[Layer]) -> None:
    """Refuse matrices that, with the copies a problem is made of, are larger than the memory that is free."""
    needed = COPIES * 8 * sum(layer.shape[0] * sums_width(layer) ** 2 for layer in layers)
    free = free_memory()
    if needed > free:
        raise ValueError(
            f"a matrix for every row takes {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} are "
            "free; take method 'elimination', or name smaller `layers`"
        )
