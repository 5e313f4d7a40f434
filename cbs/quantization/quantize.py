"""`quantize()`: a network's weights in few bits, what that costs, and how many bytes are left.

A comparison for pruning, and what may follow it: pruned weights stay exactly zero and take no code.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cbs.change import Weights, layer_weights
from cbs.curvature.base import Gram
from cbs.data import gather
from cbs.names import check_name
from cbs.network.eligible import masked_names, survey, unwrap
from cbs.network.evaluate import Evaluation, evaluate, output_changes
from cbs.network.layers import Layer, named_layers
from cbs.network.losses import Loss, named_loss
from cbs.network.network import Network
from cbs.network.surgery import clone, put_mask, read_masks
from cbs.network.surgery import write as write_weights
from cbs.quadratic import Quadratic, absolute_damping
from cbs.quantization.feedback import round_with_feedback
from cbs.quantization.grid import GRIDS, PER, Codes, Grid, fit
from cbs.quantization.stored import PackedLayer, count_bytes, file_tensors
from cbs.quantization.stored import write as write_file
from cbs.result import PruneResult
from solvers.control import is_number
from solvers.hessian import Array
from solvers.problem import Mask

ROUNDINGS = ("nearest", "feedback")
BITS = (2, 8)


BLOCKS = "it is a block of a grouped convolution"
TOKENS = "it is an Embedding"
"""Why a layer is not quantized."""


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer in few bits.

    Attributes:
        name: of the module.
        shape: of its weight.
        kept: weights that have codes; the others are pruned.
        bytes: of its weight: codes, mask and grid.
        value: layer objective `1/2 sum_r D_r H D_r'` of the move that rounding is, `H` the layer Gram of the
            network that was given; None without data.
        measured: the same by running the modules, undamped part and damping; None without data.
        nearest_rows: rows that are rounded to nearest; with feedback those for which that is better.
    """

    name: str
    shape: tuple[int, ...]
    kept: int
    bytes: int
    value: float | None
    measured: float | None
    nearest_rows: int


@dataclass(frozen=True, eq=False)
class QuantizeResult:
    """A quantized network.

    Attributes:
        model: a copy with the rounded weights, at their own type; masks are as they were.
        settings: what was asked: bits, per, rounding, grid, damping.
        layers: every layer that was quantized.
        bytes: of the file that `save` writes, but for its header: codes, masks and grids of these layers, and
            everything else (biases, norms, layers left out) at its own type.
        dense_bytes: of the state dict of the network, with plain weights.
        before: loss and accuracy on the data of the network that was given; None without data.
        after: the same of the quantized one.
        test_before: on the test data, or None.
        test_after: on the test data, or None.
        seconds: wall time of fitting and rounding, Grams included.
        packed: the layers as they are stored, by name.
    """

    model: nn.Module
    settings: Mapping[str, Any]
    layers: list[QuantizedLayer]
    bytes: int
    dense_bytes: int
    before: Evaluation | None
    after: Evaluation | None
    test_before: Evaluation | None
    test_after: Evaluation | None
    seconds: float
    packed: Mapping[str, PackedLayer]

    def __repr__(self) -> str:
        asked = self.settings
        loss = ""
        if self.before is not None and self.after is not None:
            loss = f", loss {self.before.loss:.4f} -> {self.after.loss:.4f}"
        return (
            f"QuantizeResult: {asked['bits']} bits a weight, a grid a {asked['per']}, {asked['rounding']}: "
            f"{self.dense_bytes:,} -> {self.bytes:,} bytes{loss}"
        )

    @property
    def value(self) -> float | None:
        """Sum of the layer objectives; None without data."""
        values = [layer.value for layer in self.layers]
        return None if None in values else sum(values)  # type: ignore[arg-type]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network as packed codes; `cbs.load_quantized` reads it.

        Raises:
            OSError: if it can't be written.
        """
        write_file(path, _rest(self.model, self.packed), self.packed)

    def to_dict(self) -> dict[str, Any]:
        """Everything but tensors, ready for JSON."""
        evaluations = ("before", "after", "test_before", "test_after")
        return {
            **self.settings,
            "bytes": self.bytes,
            "dense_bytes": self.dense_bytes,
            "value": self.value,
            **{name: _plain(getattr(self, name)) for name in evaluations},
            "seconds": self.seconds,
            "layers": [_plain(layer) for layer in self.layers],
        }


@torch.inference_mode(False)
def quantize(
    model: nn.Module | PruneResult,
    data: Any = None,
    *,
    bits: int = 4,
    per: str = "row",
    rounding: str = "nearest",
    grid: str = "search",
    layers: Sequence[str] | None = None,
    damping: float = 1e-2,
    samples: int | None = None,
    loss: str | Loss | None = None,
    test: Any = None,
    seed: int = 0,
    device: str = "cpu",
) -> QuantizeResult:
    """Round the weights of a network's layers to grids of few levels.

    Biases, norms and all else keep their type. What is pruned, by a mask of `torch.nn.utils.prune`, stays
    exactly zero; zeros without a mask are weights like any others.

    Args:
        model: the network, which is not changed, or the result of a pruning: its model with masks; where
            whole neurons went, the smaller network of `permanent()`.
        data: calibration data in any form that `cbs.prune` takes; None for `nearest` without measurements.
        bits: of a code, from 2 to 8.
        per: a grid for every `row` (output neuron, channel), or one for a layer's whole `tensor`.
        rounding: `nearest` level; or with error `feedback` on the layer Gram (GPTQ; Frantar et al. 2023),
            where weights not yet rounded, and the bias, make up for those that are. A row for which the
            nearest levels have the smaller layer objective gets these.
        grid: `search` for the levels of least squared error, or `range`: from the least weight to the
            largest.
        layers: names of the layers; if absent every `Linear` and ungrouped `Conv2d`.
        damping: added to the Gram's diagonal, relative to its mean.
        samples: how many samples to take of the data; if absent all.
        loss: as in `cbs.prune`; if absent that of the pruning, or `cross_entropy`.
        test: held-out data to evaluate on too.
        seed: of the draw of samples.
        device: torch device to run the network on.

    Raises:
        ValueError: in one line, for bad input, or what the network or the loss refuses.
    """
    _check(bits, per, rounding, grid, damping, data, test)
    _check_draw(samples, seed)
    padding = None
    if isinstance(model, PruneResult):
        loss = model.request.loss if loss is None else loss
        padding = model.request.padding
        model = model.permanent() if model.neurons else model.model
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model must be a torch.nn.Module or the result of a pruning, not {type(model).__name__}"
        )
    network = None
    if data is not None:
        network = Network(
            model, data, loss=named_loss("cross_entropy" if loss is None else loss), layers=layers,
            damping=damping, samples=samples, seed=seed, device=device, padding=padding,
            rewrite=False, unfit=_unfit,
        )  # fmt: skip
        _require_whole(network.layers)
        if test is not None:
            network.hold_out(gather(test, seed=seed, model=model))
    start = time.perf_counter()
    found, pruned = _layers(model, layers) if network is None else (network.layers, network.earlier)
    for layer in found:
        _require_spans(layer, layer_weights(layer).W)
    quadratics: list[Quadratic | None] = [None] * len(found)
    if network is not None:
        quadratics = [*network(Gram())]
    rounded = [
        _round(layer, mask, quadratic, fit(layer_weights(layer).W, mask, bits, per, grid), rounding)
        for layer, mask, quadratic in zip(found, pruned, quadratics, strict=True)
    ]
    seconds = time.perf_counter() - start
    small = clone(model if network is None else network.model)
    for layer, step in zip(found, rounded, strict=True):
        write_weights(layer.of(small), step.weights)
    packed = {
        layer.name: PackedLayer.of(layer.own_shape, step.grid, step.codes, mask)
        for layer, step, mask in zip(found, rounded, pruned, strict=True)
    }
    told = [
        QuantizedLayer(
            name, packed[name].shape, int((~mask).sum()), count_bytes(packed[name].tensors),
            None if step.values is None else float(step.values.sum()), None, step.nearest_rows,
        )
        for name, step, mask in zip(packed, rounded, pruned, strict=True)
    ]  # fmt: skip
    settings = {"bits": int(bits), "per": per, "rounding": rounding, "grid": grid, "damping": float(damping)}
    result = QuantizeResult(
        small, settings, told, count_bytes(file_tensors(_rest(small, packed), packed)),
        count_bytes(small.state_dict()), None, None, None, None, seconds, packed,
    )  # fmt: skip
    if network is not None:
        result = _measured(result, network)
        network.restore(small)
    _mask_again(small, model, packed if network is not None else None)
    return result


@dataclass(frozen=True, eq=False)
class _Rounded:
    """A layer's codes, and what they make of it."""

    grid: Grid
    codes: Codes
    weights: Weights
    values: Array | None
    nearest_rows: int


def _round(layer: Layer, pruned: Mask, quadratic: Quadratic | None, grid: Grid, rounding: str) -> _Rounded:
    """Round a layer; `[m]` objectives of its rows where there is a model of the loss."""
    dense = layer_weights(layer)

    def made(codes: Codes, bias: Array | None) -> tuple[Weights, Array | None]:
        W = _stored(np.where(pruned, 0.0, grid.values(codes)), layer)
        weights = Weights(W, None if bias is None else _stored(bias, layer))
        return weights, None if quadratic is None else quadratic.row_values([weights])

    codes = grid.nearest(dense.W)
    weights, values = made(codes, dense.bias)
    if rounding == "nearest":
        return _Rounded(grid, codes, weights, values, len(codes))
    assert quadratic is not None
    assert isinstance(quadratic.H, np.ndarray)
    assert values is not None
    try:
        other, bias = round_with_feedback(dense.W, dense.bias, quadratic.H, pruned, grid)
    except ValueError as error:
        raise ValueError(f"layer {layer.name!r}: {error}") from None
    _, others = made(other, bias)
    assert others is not None
    worse = others > values
    codes = np.where(worse[:, None], codes, other)
    if bias is not None and dense.bias is not None:
        bias = np.where(worse, dense.bias, bias)
    weights, values = made(codes, bias)
    return _Rounded(grid, codes, weights, values, int(worse.sum()))


def _stored(values: Array, layer: Layer) -> Array:
    """Values as the layer's type has them, whose precision may be less than that of a grid."""
    return torch.from_numpy(values).to(layer.weight.dtype).double().numpy()


def _require_spans(layer: Layer, W: Array) -> None:
    """Refuse weights whose spread a grid in single precision can't have.

    Raises:
        ValueError: naming the layer.
    """
    size, most = float(np.abs(W).max(initial=0.0)), float(np.finfo(np.float32).max) / 4
    if not size <= most:
        raise ValueError(
            f"layer {layer.name!r}: its weights reach {size:.3g}, and grids in single precision take "
            f"{most:.3g} at most; leave it out with `layers`"
        )


def _measured(result: QuantizeResult, network: Network) -> QuantizeResult:
    """The result with losses, accuracies, and the layers' objectives by running their modules."""
    after = [layer.of(result.model) for layer in network.layers]
    changes = output_changes(network.model, network.layers, after, network.samples)
    layers = []
    for layer, told, dense in zip(network.layers, result.layers, network.dense, strict=True):
        change, W = changes[layer.name], layer_weights(layer.of(result.model)).W
        damping = absolute_damping(change.diagonal, network.damping)
        measured = float(change.rows.sum() + 0.5 * damping * np.square(W - dense.W).sum())
        layers.append(replace(told, measured=measured))
    held_out = network.held_out
    return replace(
        result, layers=layers, before=network.before, test_before=network.test_before,
        after=evaluate(result.model, network.samples, network.loss),
        test_after=None if held_out is None else evaluate(result.model, held_out, network.loss),
    )  # fmt: skip


def _unfit(layer: Layer) -> str | None:
    """Why a layer is not quantized, or None."""
    return TOKENS if layer.tokens else BLOCKS if layer.blocks > 1 else None


def _require_whole(layers: Sequence[Layer]) -> None:
    """Refuse blocks, which only a user's own word brings here.

    Raises:
        ValueError: in one line.
    """
    for layer in layers:
        if why := _unfit(layer):
            raise ValueError(f"layers: {layer.name!r} can't be quantized: {why}")


def _layers(model: nn.Module, names: Sequence[str] | None) -> tuple[list[Layer], list[Mask]]:
    """Layers of a network without data, and what is pruned of each."""
    model = unwrap(model)
    masks = read_masks(model)
    layers = named_layers(clone(model), survey(model).choose(names))
    if names is None:
        layers = [layer for layer in layers if layer.blocks == 1]
    _require_whole(layers)
    none = [np.zeros(layer.shape, dtype=bool) for layer in layers]
    return layers, [
        layer.matrix(masks[layer.path]).cpu().numpy() if layer.path in masks else empty
        for layer, empty in zip(layers, none, strict=True)
    ]


def _mask_again(small: nn.Module, model: nn.Module, only: Mapping[str, PackedLayer] | None) -> None:
    """Put the masks of the network that was given into its copy, in place; of weights of some layers only."""
    model = unwrap(model)
    for parameter in masked_names(model):
        for name, mask in read_masks(model, parameter).items():
            if only is None or (parameter == "weight" and name in only):
                put_mask(small.get_submodule(name), parameter, mask)


def _rest(model: nn.Module, packed: Mapping[str, PackedLayer]) -> dict[str, Tensor]:
    """A network's state dict with plain weights, without those that are packed."""
    weights = {f"{name}.weight" for name in packed}
    return {name: value for name, value in clone(model).state_dict().items() if name not in weights}


def _plain(part: Any) -> dict[str, Any] | None:
    if part is None:
        return None
    record = {field.name: getattr(part, field.name) for field in fields(part)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in record.items()}


def _check(bits: int, per: str, rounding: str, grid: str, damping: float, data: Any, test: Any) -> None:
    least, most = BITS
    if not isinstance(bits, Integral) or isinstance(bits, bool) or not least <= bits <= most:
        raise ValueError(f"bits must be a whole number from {least} to {most}, got {bits!r}")
    for name, value, known in (("per", per, PER), ("rounding", rounding, ROUNDINGS), ("grid", grid, GRIDS)):
        check_name(name, value, known)
    if not is_number(damping) or not 0 <= damping < math.inf:
        raise ValueError(f"damping must be a finite number >= 0, got {damping!r}")
    if data is None and (rounding == "feedback" or test is not None):
        what = "rounding 'feedback' is on the layer Gram" if rounding == "feedback" else "test needs a loss"
        raise ValueError(f"data is missing: {what}; give calibration data")


def _check_draw(samples: int | None, seed: int) -> None:
    for name, value, least in (("samples", samples, 1), ("seed", seed, 0)):
        whole = isinstance(value, Integral) and not isinstance(value, bool) and value >= least
        if not whole and not (name == "samples" and value is None):
            end = " or None" if name == "samples" else ""
            raise ValueError(f"{name} must be a whole number >= {least}{end}, got {value!r}")
