"""What curvlinops multiplies with, written out: dense matrices of small networks, Kronecker factors."""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbs.change import array
from cbs.curvature.fisher import damped_factor
from cbs.curvature.operators import Hessian, Kronecker, MonteCarloFisher, _Operator
from cbs.data import Samples
from cbs.memory import free_memory
from cbs.network.answers import answer
from cbs.network.layers import Layer, visiting
from cbs.network.leaves import Leaves
from cbs.network.losses import Loss, sample_losses
from cbs.quadratic import Quadratic, absolute_damping
from solvers.hessian import Array

if TYPE_CHECKING:
    from cbs.network.network import Network

LIMIT = 4_096
"""Most weights of a dense matrix: its eigenvalues take minutes beyond."""
COPIES = 4
"""Matrices of its size that are there at once."""
COLUMNS, BATCH = 64, 200
"""How many products are taken at once, on how many samples."""
ROUNDING = 1e-9
"""Negative eigenvalues up to this part of the largest are rounding."""
LOSSES: dict[Any, type[nn.Module]] = {
    F.cross_entropy: nn.CrossEntropyLoss,
    F.mse_loss: nn.MSELoss,
    F.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
}
"""Losses that are log-likelihoods, whose labels can be drawn."""


def too_large(network: Network, curvature: _Operator) -> str | None:
    """Why a matrix can't be written out, in words that follow a method's name; None if it can."""
    sizes = [layer.size for layer in network.layers]
    p = sum(sizes) if curvature.whole else max(sizes)
    if reason := _too_many(p, curvature.called):
        return reason
    return _unlikely(network) if isinstance(curvature, MonteCarloFisher) else None


def no_factors(network: Network, curvature: Kronecker) -> str | None:
    """Why a network has no Kronecker factors, in words that follow a method's name; None if it has."""
    if reason := _unlikely(network):
        return reason
    for layer in network.layers:
        if not isinstance(layer.module, nn.Linear | nn.Conv2d) or layer.blocks > 1:
            return (
                f"has no Kronecker factors for layer {layer.name!r}, neither a Linear nor an ungrouped "
                "Conv2d; take cbs.GaussNewton(), or name other `layers`"
            )
        if isinstance(layer.module, nn.Conv2d) and not _evenly_padded(layer.module):
            return (
                f"has no Kronecker factors for layer {layer.name!r}, which is not padded with as many zeros "
                "on both sides; take cbs.GaussNewton(), or name other `layers`"
            )
    if (often := _runs_often(network)) is not None:
        return (
            f"has no Kronecker factors for layer {often!r}, which runs several times in a pass; take "
            "cbs.GaussNewton(), or name other `layers`"
        )
    if curvature.joined:
        return _too_many(max(layer.size for layer in network.layers), "product of Kronecker factors")
    needed = 8 * sum(layer.shape[0] * layer.shape[1] ** 2 for layer in network.layers)
    if needed > free_memory():
        return f"needs {needed / 2**30:.1f} GiB for a matrix a row; name smaller `layers`"
    return None


def _runs_often(network: Network) -> str | None:
    """The first layer that runs more than once in a pass, as those of recurrent networks do."""
    ran: Counter[str] = Counter()
    with torch.no_grad(), visiting(network.layers, lambda name, x, y: ran.update([name])):
        answer(network.model, network.samples.first(1))
    return next((layer.name for layer in network.layers if ran[layer.name] > 1), None)


def _evenly_padded(module: nn.Conv2d) -> bool:
    """Whether a convolution pads as curvlinops takes it to, whatever it is told."""
    reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    return module.padding_mode == "zeros" and (module.padding != "same" or all(r % 2 == 0 for r in reach))


def _too_many(p: int, called: str) -> str | None:
    if p > LIMIT or COPIES * 8 * p * p > free_memory():
        return (
            f"needs the {called} of {p} weights, its limit is {LIMIT} and what fits into memory; take "
            "cbs.GaussNewton(), which is never formed, or name smaller `layers`"
        )
    return None


def _unlikely(network: Network) -> str | None:
    """Why no labels can be drawn for a network's loss."""
    if likelihood(network.loss) is None:
        able = "cross_entropy, mse_loss or binary_cross_entropy_with_logits"
        return f"needs a loss of which labels can be drawn, {able}; take cbs.GaussNewton()"
    with torch.no_grad():
        outputs = answer(network.model, network.samples.first(1))
    if outputs.ndim != 2:
        return f"needs one row of outputs a sample, not {list(outputs.shape[1:])}; take cbs.GaussNewton()"
    return None


def likelihood(loss: Loss) -> nn.Module | None:
    """The loss as the module that curvlinops knows it by, a mean over samples; None if it is another."""
    if isinstance(loss, nn.Module):
        plain = all(getattr(loss, name, None) is None for name in ("weight", "pos_weight"))
        plain = plain and not getattr(loss, "label_smoothing", 0.0)
        return type(loss)() if type(loss) in LOSSES.values() and plain else None
    if isinstance(loss, functools.partial):
        given = {name: value for name, value in loss.keywords.items() if name != "reduction"}
        loss = loss.func if not given and not loss.args else loss
    kind = LOSSES.get(loss)
    return None if kind is None else kind()


class _Mean(nn.Module):
    """Any loss as curvlinops wants one: a module that says it is a mean over samples."""

    reduction = "mean"

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean of the samples' losses."""
        return sample_losses(self.loss, outputs, targets).mean()


@contextmanager
def _quietly() -> Iterator[None]:
    """Without PyTorch's own remark that forward-mode derivatives are set up by `torch.jit`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        yield


def operator_quadratics(network: Network, curvature: _Operator) -> list[Quadratic]:
    """The models `1/2 D' H D` of a damped operator: one of all layers, or a block a layer.

    Weights that were pruned before have no part in it.
    """
    assert curvature.damping is not None
    every = range(len(network.layers))
    groups = [every] if curvature.whole else [range(i, i + 1) for i in every]
    models = []
    for group, (X, _) in zip(groups, _factors(network, curvature), strict=True):
        H = damped_factor(X, curvature.damping)
        name = network.layers[group[0]].name if len(group) == 1 else None
        dense = [network.dense[i] for i in group]
        earlier = [network.earlier[i] for i in group]
        models.append(Quadratic(group, dense, H, earlier, name, H.damping, flat=True))
    return models


def repairs(network: Network, curvature: _Operator) -> dict[str, float]:
    """What of a matrix's negative part was left out, beyond rounding; nothing where there was none."""
    found = [stats for _, stats in _factors(network, curvature)]
    count, negative, size = (sum(each) for each in zip(*found, strict=True))
    return {"negative_eigenvalues": count, "negative_share": negative / size} if count else {}


def _factors(network: Network, curvature: _Operator) -> list[tuple[Array, tuple[int, float, float]]]:
    """Of every model a factor of its matrix, and how much was negative; the same for every damping."""

    def compute() -> list[tuple[Array, tuple[int, float, float]]]:
        model, layers, samples = _precise(network)
        samples = samples.choose(network.gradients, network.seed)
        pruned = [mask.ravel() for mask in network.earlier]
        groups = [range(len(layers))] if curvature.whole else [range(i, i + 1) for i in range(len(layers))]
        found = []
        for group in groups:
            H = dense_matrix(model, [layers[i] for i in group], samples, network.loss, curvature)
            gone = np.concatenate([pruned[i] for i in group])
            H[gone] = H[:, gone] = 0.0
            found.append(positive_factor(H))
        if not any(X.any() for X, _ in found):
            network.checked([np.zeros(layer.shape) for layer in layers])
        return found

    return network.memo(("factors", replace(curvature, damping=None)), compute)


def _precise(network: Network) -> tuple[nn.Module, list[Layer], Samples]:
    """A copy of the network, its layers and the samples, in double precision."""
    model, layers, samples = network.differentiable()
    return model.double(), layers, samples.cast(Tensor.double, targets=True)


def dense_matrix(
    model: nn.Module, layers: Sequence[Layer], samples: Samples, loss: Loss, curvature: _Operator
) -> Array:
    """`[p, p]` of the weights of some layers, one layer after the other, as curvlinops has it.

    Args:
        model: network in evaluation mode.
        layers: layers of `model`.
        samples: inputs and targets.
        loss: of outputs and targets.
        curvature: which matrix.
    """
    with _quietly():
        import curvlinops

        leaves = Leaves(layers)
        weights = leaves.tensors
        data, plain = list(samples.batches(BATCH)), {"check_deterministic": False}
        if isinstance(curvature, MonteCarloFisher):
            operator = curvlinops.FisherMCLinearOperator(
                model,
                likelihood(loss),
                weights,
                data,
                seed=curvature.seed,
                mc_samples=curvature.labels,
                **plain,
            )
        else:
            named = "HessianLinearOperator" if isinstance(curvature, Hessian) else "GGNLinearOperator"
            operator = getattr(curvlinops, named)(model, _Mean(loss), weights, data, **plain)
        index = leaves.index().to(weights[0].device)
        unit = torch.zeros(sum(w.numel() for w in weights), len(index)).to(weights[0])
        unit[index, torch.arange(len(index), device=index.device)] = 1.0
        H = torch.cat([(operator @ part)[index] for part in torch.split(unit, COLUMNS, dim=1)], dim=1)
    found = array(H)
    return (found + found.T) / 2


def positive_factor(H: Array) -> tuple[Array, tuple[int, float, float]]:
    """`X [r, p]` with `X'X / r` the nearest positive semidefinite matrix to `H`, and what was left out.

    Returns:
        The factor, and of the eigenvalues how many were negative beyond rounding, what sum these had, and
        what sum the sizes of all.
    """
    values, vectors = np.linalg.eigh(H)
    slack = ROUNDING * float(np.abs(values).max(initial=0.0))
    negative = -values[values < -slack]
    kept = values > slack
    if not kept.any():
        return np.zeros((1, len(H))), (
            len(negative),
            float(negative.sum()),
            float(np.abs(values).sum()) or 1.0,
        )
    X = np.sqrt(values[kept] * kept.sum())[:, None] * vectors[:, kept].T
    return X, (len(negative), float(negative.sum()), float(np.abs(values).sum()))


def kronecker_quadratics(network: Network, curvature: Kronecker) -> list[Quadratic]:
    """Every layer's model from its Kronecker factors: `B_rr A` for row r, or `B x A` for all weights."""
    assert curvature.damping is not None
    factors = network.memo("kronecker factors", lambda: _kronecker_factors(network))
    parts = zip(network.layers, network.dense, network.earlier, factors, strict=True)
    models = []
    for i, (layer, dense, earlier, (A, B)) in enumerate(parts):
        index, shared = range(i, i + 1), ((dense,), (earlier,))
        if curvature.joined:
            X = np.kron(_root(B), _root(A)) * (len(A) * len(B)) ** 0.5
            X[:, earlier.ravel()] = 0.0
            H = damped_factor(X, curvature.damping)
            models.append(Quadratic(index, shared[0], H, shared[1], layer.name, H.damping, flat=True))
            continue
        rows = np.diagonal(B)[:, None, None] * A
        every = np.arange(len(A))
        added = absolute_damping(float(rows[:, every, every].mean()), curvature.damping)
        rows[:, every, every] += added
        models.append(Quadratic(index, shared[0], rows, shared[1], layer.name, added))
    return models


def _kronecker_factors(network: Network) -> list[tuple[Array, Array]]:
    """Every layer's `A [n, n]` and `B [m, m]`."""
    model, layers, samples = _precise(network)
    with _quietly():
        import curvlinops

        weights = Leaves(layers).tensors
        operator = curvlinops.KFACLinearOperator(
            model, likelihood(network.loss), weights, list(samples.batches(BATCH)),
            fisher_type=curvlinops.FisherType.TYPE2, check_deterministic=False,
        )  # fmt: skip
        p = sum(layer.size for layer in layers)
        _ = operator @ torch.zeros(p, dtype=weights[0].dtype, device=weights[0].device)  # computes them
        known = operator.state_dict()
    found = []
    for layer in layers:
        A, B = (array(known[f"{side}_covariances"][layer.name]) for side in ("input", "gradient"))
        order = layer.view(torch.arange(layer.size).reshape(layer.own_shape))[0].reshape(-1).numpy()
        found.append((A[np.ix_(order, order)], B))
    network.checked([np.outer(np.diagonal(B), np.diagonal(A)) for A, B in found])
    return found


def _root(A: Array) -> Array:
    """The symmetric square root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(A)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)
