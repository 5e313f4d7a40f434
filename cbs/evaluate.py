"""Loss and accuracy of a network, and how far a pruned layer's output really moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cbs.data import Samples, first_line
from cbs.layers import Layer, visiting
from cbs.surgery import clone

Loss = Callable[[Tensor, Tensor], Tensor]
"""A loss of (outputs, targets), mean or sum over the samples of a batch."""


@dataclass(frozen=True)
class Evaluation:
    """A network's mean loss over some samples.

    Attributes:
        loss: mean over samples.
        accuracy: fraction whose largest output is the target; None unless targets are class indices.
        samples: how many.
    """

    loss: float
    accuracy: float | None
    samples: int


def sample_losses(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """`[N]` loss of every sample by itself."""
    single = lambda output, target: loss(output[None], target[None])  # noqa: E731
    losses: Tensor = torch.func.vmap(single)(outputs, targets)
    return losses.reshape(len(outputs))


def evaluate(model: nn.Module, samples: Samples, loss: Loss, batch: int = 2000) -> Evaluation:
    """Mean loss and accuracy in evaluation mode; the modules' modes are left as they were.

    Raises:
        ValueError: if the model refuses the inputs, or the loss the outputs and targets.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    total, correct, labels = 0.0, 0, 0
    try:
        with torch.no_grad():
            for inputs, targets in samples.batches(batch):
                outputs = forward(model, inputs)
                try:
                    total += float(sample_losses(loss, outputs, targets).sum(dtype=torch.float64))
                except Exception as error:
                    raise ValueError(
                        f"loss refuses outputs of shape {list(outputs.shape)} with targets of shape "
                        f"{list(targets.shape)} and type {targets.dtype} ({first_line(error)})"
                    ) from error
                if _are_classes(outputs, targets):
                    correct += int((outputs.argmax(dim=1) == targets).sum())
                    labels += targets.numel()
    finally:
        for module, mode in modes.items():
            module.training = mode
    return Evaluation(total / len(samples), correct / labels if labels else None, len(samples))


def forward(model: nn.Module, inputs: Tensor) -> Tensor:
    """The model's output.

    Raises:
        ValueError: if the model refuses the inputs, or answers with anything but one tensor a sample.
    """
    try:
        outputs = model(inputs)
    except Exception as error:
        raise ValueError(
            f"data: the model refuses inputs of shape {list(inputs.shape)} and type {inputs.dtype} "
            f"({first_line(error)})"
        ) from error
    if not isinstance(outputs, Tensor) or outputs.shape[:1] != inputs.shape[:1]:
        what = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"model must answer a batch of {len(inputs)} with as many outputs, got {what}")
    return outputs


def output_errors(
    model: nn.Module, layers: Sequence[Layer], after: Mapping[str, nn.Module], samples: Samples
) -> dict[str, float]:
    """Half the mean squared change of every layer's output, on the inputs it has in the dense network.

    `1/2 mean_samples |layer'(x) - layer(x)|^2`, summed over positions, by running the modules
    themselves in double precision.

    Args:
        model: the dense network, in evaluation mode.
        layers: its layers.
        after: the pruned module of every layer, by name.
        samples: N inputs.
    """
    pairs = {
        layer.name: (clone(layer.module).double(), clone(after[layer.name]).double()) for layer in layers
    }
    errors = dict.fromkeys(pairs, 0.0)

    def visit(name: str, x: Tensor, y: Tensor) -> None:
        dense, pruned = pairs[name]
        x = x.double()
        errors[name] += 0.5 * float((pruned(x) - dense(x)).square().sum()) / len(samples)

    with torch.no_grad(), visiting(layers, visit):
        for inputs, _ in samples.batches():
            model(inputs)
    return errors


def _are_classes(outputs: Tensor, targets: Tensor) -> bool:
    integral = not targets.is_floating_point() and not targets.is_complex() and targets.dtype != torch.bool
    return integral and outputs.ndim >= 2 and outputs.shape[:1] + outputs.shape[2:] == targets.shape
