"""Without labels: how far a network's outputs are from the dense one's, in place of a loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cbs.data import Samples
from cbs.network.evaluate import evaluating, forward
from cbs.network.losses import wide


class OutputDistance:
    """`|o - d|^2 / E |d|^2` of every sample: `o` its outputs, `d` those of the dense network, its targets.

    Of data without labels it is what a loss is of others: 0 for the dense network, and 1 for one that answers
    with zeros. Places that are padding count for nothing.

    Args:
        scale: `E |d|^2`, over the calibration samples.
    """

    measure = "distance of outputs"

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.__name__ = "output_distance"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """`[N]` of every sample."""
        return (outputs - targets).square().flatten(1).sum(dim=1) / self.scale


def by_distance(model: nn.Module, samples: Samples, loss: OutputDistance | None = None) -> Any:
    """A loss for samples without labels, and these with the dense outputs as targets.

    Args:
        model: the dense network.
        samples: whose targets are not looked at.
        loss: of other samples, for the same scale; None to have it from these.

    Returns:
        The loss and the samples.

    Raises:
        ValueError: in one line, if the outputs are zero, or not finite.
    """
    muted = samples.muted()
    with evaluating(model):
        answered = muted.answered(lambda x: wide(forward(model, x)))
    if loss is None:
        total = sum(float(d.double().square().sum()) for _, d in answered.groups())
        if not 0 < total < float("inf"):
            what = "zero" if total == 0 else "not finite"
            raise ValueError(
                f"data has no labels, and the model's outputs on it are {what}, so that no distance from "
                "them tells anything; give labels, or other data"
            )
        loss = OutputDistance(total / len(samples))
    return loss, answered
