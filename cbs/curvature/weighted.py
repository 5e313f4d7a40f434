"""Weighted second moments of a layer's inputs, a matrix a row: `H_r = E sum_positions omega_r z z'`.

Where rows share kinds of weights (`RowGram.groups`) there is a product of matrices for each kind instead of
each row; diagonals, and the gradients of layers whose inputs have changed, are every row's own all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn, no_grad

from cbs.change import array, layer_weights
from cbs.curvature.omega import TOGETHER, row_weights
from cbs.data import Samples
from cbs.memory import free_memory
from cbs.network.answers import answer
from cbs.network.layers import Layer, never_ran, visiting
from cbs.network.padding import real_places
from cbs.quadratic import Quadratic, absolute_damping
from solvers.hessian import Array

if TYPE_CHECKING:
    from cbs.curvature.row_gram import RowGram
    from cbs.network.network import Network

COPIES = 4
"""Of a layer's matrices that are held at once while a problem is made of them."""
PLACES = 4_096
"""Samples and positions by which rows are told apart."""
ROUNDS = 50
"""Most steps of k-means."""


def weighted_quadratics(network: Network, curvature: RowGram) -> list[Quadratic]:
    """Every layer's model `1/2 sum_r D_r H_r D_r'`, a damped matrix a row, with the bias as last column.

    Raises:
        ValueError: if the matrices do not fit into memory, or derivatives can't be had.
    """
    _require_memory(network.layers)
    found = [
        weighted_moments(
            network.model, None, (layer, layer), network.samples, *_weights(network, i, curvature)
        )
        for i, layer in enumerate(network.layers)
    ]
    diagonals = [np.diagonal(moments.H, axis1=1, axis2=2) for moments in found]
    network.checked(diagonals, "outputs have" if curvature.omega == "outputs" else "loss has")
    return [_quadratic(network, i, moments, curvature) for i, moments in enumerate(found)]


def paired_weighted_quadratic(
    network: Network, index: int, pruned: nn.Module, curvature: RowGram
) -> Quadratic:
    """A layer's model of `1/2 E omega_r (V_r z - W_r x)^2`: z its input when pruned, x in the dense network.

    For a move `D` of its weights that is the joint model with `H_r = E[omega_r z z']` and the gradient
    `G_r = E[omega_r W_r (z - x) z']`; omega is the dense network's.

    Args:
        network: the dense network.
        index: place of the layer.
        pruned: a copy of the network, partly pruned.
        curvature: what omega is, how many kinds there are, and the damping.
    """
    layer = network.layers[index]
    weights = _weights(network, index, curvature)
    moments = weighted_moments(network.model, pruned, (layer, layer.of(pruned)), network.samples, *weights)
    return _quadratic(network, index, moments, curvature)


class Moments:
    """What is added up of a layer's inputs.

    Attributes:
        H: `[m, n, n]`, undamped.
        G: `[m, n]` the gradient; None where the inputs are those of the dense network.
    """

    def __init__(self, H: Array, G: Array | None) -> None:
        self.H, self.G = H, G


def weighted_moments(
    dense: nn.Module,
    pruned: nn.Module | None,
    layers: tuple[Layer, Layer],
    samples: Samples,
    weights: Sequence[Tensor],
    kinds: NDArray[np.int64] | None = None,
) -> Moments:
    """`H_r = 1/N sum omega_r z z'` of every row, and `G_r = 1/N sum omega_r W_r (z - x) z'`.

    Sums over samples and positions, in double precision; with a bias inputs end in a 1.

    Args:
        dense: the dense network, in evaluation mode.
        pruned: the same network, partly pruned; None for no gradient, and `z = x`.
        layers: the layer in the dense network and in the pruned one.
        samples: N inputs; streamed in batches.
        weights: of the rows in the dense network, see `cbs.curvature.omega.output_weights`.
        kinds: `[m]` the kind of every row; None for a matrix of its own each.
    """
    layer = layers[0]
    (m, n), bias = layer.shape, int(layer.bias is not None)
    own = kinds is None
    kinds = np.arange(m) if kinds is None else kinds
    like = torch.zeros(0, dtype=torch.float64, device=layer.weight.device)
    shared = like.new_zeros(int(kinds.max()) + 1, n + bias, n + bias)
    squares, gradient = like.new_zeros(m, n + bias), like.new_zeros(m, n + bias)
    members = like.new_zeros(len(shared), m)
    totals = torch.stack([part.double().sum(dim=0) for part in weights]).sum(dim=0)
    members[kinds, np.arange(m)] = 1.0 if own else 1.0 / torch.where(totals > 0, totals, 1.0)
    W = torch.as_tensor(layer_weights(layer).augmented).to(like) if pruned is not None else None
    for X, Z, omega in _inputs(dense, pruned, layers, samples, weights):
        for K, row in zip(shared, (omega @ members.T).sqrt().T, strict=True):
            scaled = row[:, None] * Z
            K.addmm_(scaled.T, scaled)
        if not own:
            squares.addmm_(omega.T, Z * Z)
        if W is not None:
            gradient.addmm_((omega * ((Z - X) @ W.T)).T, Z)
    found = array(shared) / len(samples)
    G = None if W is None else array(gradient) / len(samples)
    if own:
        return Moments(found, G)
    root = np.sqrt(array(squares) / len(samples))
    return Moments(correlated(found, kinds, root), G)


def correlated(shared: Array, kinds: NDArray[np.int64], root: Array) -> Array:
    """`H_r = S_r R S_r`, `[m, n, n]`: R the correlations of the row's kind, `S_r` its own root diagonal.

    Args:
        shared: `[kinds, n, n]` second moments of every kind.
        kinds: `[m]` of every row.
        root: `[m, n]` roots of the rows' own diagonals.
    """
    size = np.sqrt(np.diagonal(shared, axis1=1, axis2=2))
    inverse = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    R = shared * inverse[:, :, None] * inverse[:, None, :]
    H = R[kinds]
    H *= root[:, :, None]
    H *= root[:, None, :]
    return H


def _inputs(
    dense: nn.Module,
    pruned: nn.Module | None,
    layers: tuple[Layer, Layer],
    samples: Samples,
    weights: Sequence[Tensor],
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Inputs `x`, `z` and weights of rows, some samples and positions at a time."""
    left = iter(weights)
    seen: list[tuple[Tensor, Tensor]] = []
    changed: list[Tensor] = []

    def keep(name: str, x: Tensor, y: Tensor) -> None:
        x, y = real_places(layers[0], x, y)
        seen.append((x.clone(), y))  # the network may change it in place later in the pass

    def keep_changed(name: str, z: Tensor, y: Tensor) -> None:
        changed.append(real_places(layers[1], z, y)[0].clone())

    with no_grad():
        for batch, _ in samples.batches(TOGETHER):
            seen.clear()
            changed.clear()
            with visiting(layers[:1], keep):
                answer(dense, batch.clone())
            if pruned is not None:
                with visiting(layers[1:], keep_changed):
                    answer(pruned, batch)
            if not seen:
                raise never_ran(layers[0].name)
            for i, (x, y) in enumerate(seen):
                parts, omega, at = layers[0].parts(x, y), next(left), 0
                others = parts if pruned is None else layers[1].parts(changed[i], y)
                for Z in others:
                    X = Z if pruned is None else next(parts)
                    yield X, Z, omega[at : at + len(Z)].double()
                    at += len(Z)


def _weights(
    network: Network, index: int, curvature: RowGram
) -> tuple[list[Tensor], NDArray[np.int64] | None]:
    """The weights of a layer's rows, and the kinds that there are of them."""
    weights = row_weights(network, curvature.omega, index)
    if curvature.share < 1:
        means = torch.stack([part.double().sum(dim=0) for part in weights]).sum(dim=0)
        means = (means / sum(map(len, weights))).to(weights[0])
        weights = [torch.lerp(means, part, curvature.share) for part in weights]
    m = network.layers[index].shape[0]
    if curvature.groups is None or curvature.groups >= m:
        return weights, None
    count = sum(map(len, weights))
    step = max(1, count // PLACES)
    some = torch.cat([part[::step] for part in weights])
    return weights, row_kinds(array(some.double()), curvature.groups, network.seed)


def row_kinds(omega: Array, groups: int, seed: int = 0) -> NDArray[np.int64]:
    """`[m]` kinds of rows, at most `groups`, numbered from 0: k-means of `omega_r / E[omega_r]`.

    Args:
        omega: `[places, m]` weights, not negative.
        groups: how many kinds at most.
        seed: of the first centre; the others are the rows farthest from those before.
    """
    means = omega.mean(axis=0)
    V = (omega / np.where(means > 0, means, 1.0)).T
    centres = V[[int(np.random.default_rng(seed).integers(len(V)))]]
    while len(centres) < groups:
        away = _distances(V, centres).min(axis=1)
        if away.max() <= 1e-12 * np.square(V).sum(axis=1).max():
            break
        centres = np.vstack([centres, V[int(away.argmax())]])
    kinds = _distances(V, centres).argmin(axis=1)
    for _ in range(ROUNDS):
        used = np.unique(kinds)
        centres = np.stack([V[kinds == k].mean(axis=0) for k in used])
        before, kinds = kinds, _distances(V, centres).argmin(axis=1)
        if (used[kinds] == before).all():
            break
    _, numbered = np.unique(kinds, return_inverse=True)
    return np.asarray(numbered, dtype=np.int64)


def _distances(V: Array, centres: Array) -> Array:
    """`[m, k]` squared distances."""
    cross = V @ centres.T
    lengths = np.square(V).sum(axis=1)[:, None] + np.square(centres).sum(axis=1)
    return np.asarray(np.maximum(lengths - 2 * cross, 0.0))


def _quadratic(network: Network, index: int, moments: Moments, curvature: RowGram) -> Quadratic:
    """A layer's model. A row that the loss does not see is damped as the one that it sees least is."""
    assert curvature.damping is not None
    layer, n, H, G = network.layers[index], network.layers[index].shape[1], moments.H, moments.G
    if layer.bias is not None:
        H[:, n, n] = np.where(H[:, n, n] > 0.0, H[:, n, n], 1.0)
    means = np.diagonal(H, axis1=1, axis2=2)[:, :n].mean(axis=1)
    if means.any():
        means = np.where(means > 0, means, means[means > 0].min())
    added = np.array([absolute_damping(float(mean), curvature.damping) for mean in means])
    H[:, np.arange(n), np.arange(n)] += added[:, None]
    earlier = network.earlier[index]
    if G is not None:
        G[:, :n][earlier] = 0.0  # such a weight never moves
    return Quadratic(
        range(index, index + 1), (network.dense[index],), H, (earlier,), layer.name, added,
        bias=layer.bias is not None, gradient=G,
    )  # fmt: skip


def _require_memory(layers: Sequence[Layer]) -> None:
    """Refuse matrices that, with the copies a problem is made of, are larger than the memory that is free."""
    needed = 0
    for layer in layers:
        (m, n), bias = layer.shape, int(layer.bias is not None)
        needed += COPIES * 8 * m * (n + bias) ** 2
    free = free_memory()
    if needed > free:
        raise ValueError(
            f"a matrix for every row takes {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} are "
            "free; take method 'joint', or name smaller `layers`"
        )
