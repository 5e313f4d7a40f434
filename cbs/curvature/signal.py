"""Whether derivatives can be had of a network, and say what its weights matter to the loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from cbs.curvature.each import WITHOUT
from cbs.data import Samples, first_line
from cbs.network.answers import answer
from cbs.network.evaluate import FEW, SAME, forward
from cbs.network.layers import Layer
from cbs.network.surgery import clone
from solvers.hessian import Array

NUDGE = 2.0**-7
"""How far weights are moved to see whether outputs depend on them, relative to each."""


def require_single(model: nn.Module, samples: Samples) -> None:
    """Refuse a network that can't be converted to single precision.

    Args:
        model: the network, converted.
        samples: inputs and targets, converted.

    Raises:
        ValueError: if it does not run then, as one that converts its inputs to a fixed type of less.
    """
    try:
        with torch.no_grad():
            answer(model, samples.first(1))
    except Exception as error:
        raise ValueError(
            f"model can't run in float32, in which derivatives are computed ({first_line(error)}); give it "
            f"as float32, or {WITHOUT}"
        ) from error


def require_signal(
    found: Sequence[Array],
    model: nn.Module,
    layers: Sequence[Layer],
    samples: Samples,
    what: str = "loss has",
) -> None:
    """Refuse derivatives by which pruning would look free that is not.

    Args:
        found: of every layer.
        model: the network, in evaluation mode.
        layers: of `model`.
        samples: that the derivatives are from.
        what: was differentiated: "loss has", or "outputs have".

    Raises:
        ValueError: if all are zero, one is not finite, or all of a layer are zero that the outputs depend on.
    """
    if not all(bool(np.isfinite(part).all()) for part in found):
        raise ValueError(f"{what} derivatives by the weights that are NaN or infinite on this data")
    if not any(bool(part.any()) for part in found):
        raise ValueError(
            f"{what} no derivative by any weight on this data, as where outputs are detached or units never "
            f"active, or of the second order as nll_loss of a network that ends in log_softmax; {WITHOUT}"
        )
    for layer, part in zip(layers, found, strict=True):
        if not part.any() and _matters(layer, model, samples):
            raise ValueError(
                f"layer {layer.name!r}: outputs depend on its weights, but the {what} no derivative "
                "by them, as under torch.no_grad, after detach, or in a reentrant checkpoint; name the other "
                f"layers with `layers`, or {WITHOUT}"
            )


def _matters(layer: Layer, model: nn.Module, samples: Samples) -> bool:
    """Whether the outputs change with a layer's weights, by a little."""
    model = clone(model)
    with torch.no_grad():
        before = forward(model, samples.first(FEW))
        layer.of(model).weight.mul_(1 + NUDGE)
        after = forward(model, samples.first(FEW))
    return not torch.allclose(before, after, rtol=0, atol=NUDGE * SAME * float(before.abs().max()))
