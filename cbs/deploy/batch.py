"""Inputs of any kind as one batch that can be cut and given to a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cbs.data import Nested, Samples
from cbs.network.answers import tensors_in

Batch = Tensor | Nested


def as_batch(inputs: Any) -> Batch | None:
    """A batch `[N, ...]` of inputs: a tensor, a tuple or mapping of those, or samples; None stays None.

    Raises:
        ValueError: in one line, for what is none.
    """
    if inputs is None or isinstance(inputs, Tensor | Nested):
        found = inputs
    elif isinstance(inputs, Samples):
        found = inputs.first(len(inputs))
    else:
        found = Nested.of(inputs)
    if found is not None and (not found.shape or not len(found)):
        raise ValueError(f"inputs must be a batch of some samples, got shape {list(found.shape)}")
    return found


def call(model: nn.Module, batch: Batch) -> Any:
    """What a network answers to a copy of a batch."""
    return batch.clone().call(model) if isinstance(batch, Nested) else model(batch.clone())


def arguments(model: nn.Module, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of that call, by position and by keyword."""
    return batch.arguments(model) if isinstance(batch, Nested) else ((batch,), {})


def tensors_of(outputs: Any) -> list[Tensor]:
    """All tensors of a network's answer, in order: of tuples, mappings, dataclasses and other objects."""
    return tensors_in(outputs)


def difference(found: Any, wanted: Any) -> float:
    """Largest difference of two answers, relative to the largest value of the second; infinite if unlike."""
    pairs = [*zip(tensors_of(found), tensors_of(wanted), strict=False)]
    if len(tensors_of(found)) != len(tensors_of(wanted)) or any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    worst = 0.0
    for a, b in pairs:
        if b.numel():
            a, b = a.detach().cpu().to(torch.float64), b.detach().cpu().to(torch.float64)
            off = float((a - b).abs().max()) / float(b.abs().max().clamp(min=1e-30))
            if not off <= float("inf"):
                return float("inf")  # NaN is unlike anything
            worst = max(worst, off)
    return worst
