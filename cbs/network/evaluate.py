"""Loss and accuracy of a network, and how far a pruned layer's output really moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cbs.change import array
from cbs.data import Samples
from cbs.data.nested import joined
from cbs.network.answers import answer as answer
from cbs.network.answers import forward as forward
from cbs.network.answers import functional as functional
from cbs.network.everything import WholeLoss
from cbs.network.layers import Layer, never_ran, row_sums, visiting
from cbs.network.losses import (
    INSTEAD,
    Loss,
    batch_loss,
    counted,
    gradient,
    require_additive,
    require_probabilities,
    sample_losses,
)
from cbs.network.padding import real_places
from cbs.network.surgery import clone
from cbs.network.tokens import IGNORED, places_and_classes
from solvers.hessian import Array

FEW = 100
"""Samples on which a network is tried before the work."""
SAME = 1e-4
"""Largest difference of two answers to the same inputs, relative to the largest output."""


@dataclass(frozen=True)
class Evaluation:
    """A network's mean loss over some samples.

    Attributes:
        loss: mean over samples of the loss of one sample.
        accuracy: fraction of the labels that count whose class has the largest output; None unless
            targets are class indices.
        samples: how many.
        measure: what `loss` is: of data without labels the `distance of outputs` from the dense network's.
    """

    loss: float
    accuracy: float | None
    samples: int
    measure: str = "loss"


def evaluate(model: nn.Module, samples: Samples, loss: Loss) -> Evaluation:
    """Mean loss and accuracy in evaluation mode; the modules' modes are left as they were.

    Raises:
        ValueError: if the model refuses the inputs, the loss refuses the outputs and targets, or the
            loss of a batch is neither the mean nor the sum of its samples' losses.
    """
    total, correct, labels = 0.0, 0, 0
    with evaluating(model):
        for outputs, targets in _answers(model, samples):
            total += _total(loss, outputs, targets)
            right, those = right_of(loss, outputs, targets)
            correct, labels = correct + right, labels + those
    accuracy = correct / labels if labels else None
    return Evaluation(total / len(samples), accuracy, len(samples), getattr(loss, "measure", "loss"))


def right_of(loss: Loss, outputs: Tensor, targets: Any) -> tuple[int, int]:
    """How many labels of a batch have the largest output, and how many count; none if they are no classes."""
    if not isinstance(targets, Tensor):
        return 0, 0
    if isinstance(loss, WholeLoss):
        shown, known = loss.shown(outputs), targets
        if not are_classes(shown, known):
            return 0, 0
        counts = known != IGNORED
    else:
        shown, known = places_and_classes(loss, outputs, targets)
        if not are_classes(shown, known):
            return 0, 0
        counts = counted(loss, outputs, targets) if shown is outputs else known != IGNORED
    return int(((shown.argmax(dim=1) == known) & counts).sum()), int(counts.sum())


def mean_loss(model: nn.Module, samples: Samples, loss: Loss) -> float:
    """The loss of `evaluate` alone, which must have found it additive on these samples before."""
    total = 0.0
    with evaluating(model):
        for outputs, targets in _answers(model, samples):
            total += float(sample_losses(loss, outputs, targets).sum(dtype=torch.float64))
    return total / len(samples)


def _total(loss: Loss, outputs: Tensor, targets: Tensor) -> float:
    """The sum of a batch's losses, once it is known that the loss is additive."""
    whole = batch_loss(loss, outputs, targets)
    losses = sample_losses(loss, outputs, targets)
    require_additive(whole, losses, outputs, targets)
    return float(losses.sum(dtype=torch.float64))


def _answers(model: nn.Module, samples: Samples) -> Iterator[tuple[Tensor, Any]]:
    """Outputs and targets, batch by batch; batches of one sample in pairs, to tell a mean from a sum."""
    held: list[tuple[Tensor, Any]] = []
    left = len(samples)
    for inputs, targets in samples.batches():
        left -= len(inputs)
        held.append((forward(model, inputs), targets))
        if len(inputs) > 1 or len(held) > 1 or not left:
            yield from _put_together(held)
            held.clear()


def _put_together(held: list[tuple[Tensor, Any]]) -> Iterator[tuple[Tensor, Any]]:
    """Batches as one, if their shapes let them."""
    try:
        found = joined([outputs for outputs, _ in held]), joined([target for _, target in held])
    except RuntimeError:
        yield from held
        return
    yield found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the modules' modes are put back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def require_answers(model: nn.Module, samples: Samples, loss: Loss) -> None:
    """Refuse a network and a loss of which nothing that is measured would hold.

    Raises:
        ValueError: if the model answers the same inputs differently every time, or the loss has no
            gradient by the outputs on any sample: every pruning would look perfect.
    """
    for _, targets in samples.groups():
        require_probabilities(loss, targets)
    few = samples.few(FEW)
    with evaluating(model):
        pairs = [(forward(model, x.clone()), forward(model, x)) for x, _ in few.batches()]
        largest = max(float(first.nan_to_num().abs().max()) for first, _ in pairs)
        slack = max(SAME, 4 * torch.finfo(pairs[0][0].dtype).eps) * largest
        if not all(torch.allclose(a, b, rtol=0, atol=slack, equal_nan=True) for a, b in pairs):
            raise ValueError(
                "model answers the same inputs differently every time, in evaluation mode too, as dropout "
                "that is always on does, or what is kept from one call for the next; switch that off"
            )
        if getattr(loss, "measure", None) is not None:
            return  # a distance from what the dense network says itself, where its slope is zero
        for outputs, targets in _answers(model, replace(samples, batch=min(samples.batch, FEW))):
            slope = gradient(loss, outputs, targets)
            if slope is not None and bool(slope.ne(0).any()):
                return
    name = getattr(loss, "__name__", type(loss).__name__)
    _, labels = next(samples.groups())
    ignored = isinstance(labels, Tensor) and not labels.is_floating_point()
    ignored = ignored and bool((labels == labels.flatten()[0]).all())
    raise ValueError(
        f"loss {name} has no gradient by the outputs {list(outputs.shape)} on any sample, so every pruning "
        f"would look perfect; {'give labels that it does not all ignore; ' if ignored else ''}{INSTEAD}"
    )


@dataclass(frozen=True)
class OutputChange:
    """What running a layer's modules, before and after pruning, says of its output.

    Attributes:
        rows: `[m]` half the mean squared change of every row's output, summed over positions; of an
            Embedding's row that of its vector, summed over the places where the token stands.
        diagonal: mean diagonal of the weights' part of the layer's Gram, undamped.
    """

    rows: Array
    diagonal: float


def output_changes(
    model: nn.Module,
    layers: Sequence[Layer],
    after: Sequence[Layer],
    samples: Samples,
    *,
    precise: bool = True,
) -> dict[str, OutputChange]:
    """How much every layer's output changes on the inputs it has in the dense network.

    `1/2 mean_samples (layer'(x) - layer(x))^2`, by running a copy of the module whose weight and bias are
    the move of the layer's, a difference taken in double precision: its output is the change. (A block of a
    grouped convolution is convolved by itself.)

    Args:
        model: the dense network, in evaluation mode.
        layers: its layers.
        after: every layer of the pruned network.
        samples: N inputs.
        precise: run the copies in double precision, else in that of the network, at least single; squares
            are summed in double precision anyway.

    Raises:
        ValueError: if a layer does not run.
    """
    by_name = {layer.name: layer for layer in layers}
    moves: dict[str, Callable[[Tensor], Tensor]] = {}
    dtypes: dict[str, torch.dtype] = {}
    for layer, pruned in zip(layers, after, strict=True):
        own = torch.promote_types(layer.weight.dtype, torch.float32)
        dtypes[layer.name] = torch.float64 if precise else own
        moves[layer.name] = _move(layer, pruned, dtypes[layer.name])
    sums: dict[str, tuple[Tensor, Tensor]] = {}

    def visit(name: str, x: Tensor, y: Tensor) -> None:
        layer, move = by_name[name], moves[name]
        x, y = real_places(layer, x, y)
        for part in layer.split(x, y):
            if layer.tokens:
                rows = row_sums(part, move(part).square().sum(dim=1, dtype=torch.float64), layer.shape[0])
            else:
                moved = layer.flatten(move(part.to(dtypes[name])))
                rows = moved.square().sum(dim=0, dtype=torch.float64)
            total, energy = sums.get(name, (0.0, 0.0))
            sums[name] = total + rows, energy + layer.energy(part)

    with torch.no_grad(), visiting(layers, visit):
        for inputs, _ in samples.batches():
            answer(model, inputs)
    for name in by_name:
        if name not in sums:
            raise never_ran(name)
    N = len(samples)
    return {
        name: OutputChange(0.5 * array(rows) / N, float(energy) / (N * by_name[name].shape[1]))
        for name, (rows, energy) in sums.items()
    }


def _move(dense: Layer, pruned: Layer, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """What a layer computes with its pruned weight and bias less the dense ones, in double precision."""
    W = (pruned.weight.detach().double() - dense.weight.detach().double()).to(dtype)
    b, before = pruned.own_bias, dense.own_bias
    c = None if b is None or before is None else (b.detach().double() - before.detach().double()).to(dtype)
    if dense.blocks > 1:
        return lambda x: dense.convolve(x, W, c)
    module = clone(dense.module).to(dtype)
    with torch.no_grad():
        dense.view(module.weight).copy_(W)  # type: ignore[arg-type]
        if c is not None:
            module.bias.copy_(c)  # type: ignore[operator]
    return module.forward


def are_classes(outputs: Tensor, targets: Tensor) -> bool:
    """Whether targets are class labels of outputs `[N, classes, ...]`, so that there is an accuracy."""
    integral = not targets.is_floating_point() and not targets.is_complex() and targets.dtype != torch.bool
    return integral and outputs.ndim >= 2 and outputs.shape[:1] + outputs.shape[2:] == targets.shape
