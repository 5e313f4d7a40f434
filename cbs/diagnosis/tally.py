"""Loss, accuracy and divergence added up batch by batch, for many networks on the same samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cbs.data import Samples
from cbs.network.evaluate import FEW, evaluating, forward, right_of
from cbs.network.losses import Loss, sample_losses
from cbs.refit.divergence import Divergence, Squares, choose


@dataclass(frozen=True)
class Effect:
    """What a network does compared with the dense one, as means over samples.

    Attributes:
        loss: of a sample; without labels the distance of the outputs from the dense network's.
        loss_increase: over that of the dense network.
        accuracy: fraction of the labels that count; None unless targets are class indices.
        divergence: of the outputs from the dense network's: the Kullback-Leibler divergence of the classes'
            probabilities where the loss is a cross entropy, else half the squared distance.
    """

    loss: float
    loss_increase: float
    accuracy: float | None
    divergence: float


class Tally:
    """Adds up what a network's outputs come to.

    Args:
        loss: of outputs and targets, additive over samples.
        divergence: of outputs from the dense network's.
    """

    def __init__(self, loss: Loss, divergence: Divergence) -> None:
        self._loss, self._divergence = loss, divergence
        self.count = self._correct = self._labels = 0
        self._lost = self._apart = 0.0

    def add(self, outputs: Tensor, targets: Any, dense: Tensor) -> None:
        """Take in a batch: outputs `[N, ...]`, targets, and the dense network's outputs."""
        self.count += len(outputs)
        self._apart += float(self._divergence.values(outputs, dense).sum())
        self._lost += float(sample_losses(self._loss, outputs, targets).sum(dtype=torch.float64))
        right, labels = right_of(self._loss, outputs, targets)
        self._correct, self._labels = self._correct + right, self._labels + labels

    def effect(self, dense: Effect | None) -> Effect:
        """What it comes to, held against the dense network's; None if it is that of the dense one."""
        loss = self._lost / self.count
        increase = 0.0 if dense is None else loss - dense.loss
        accuracy = self._correct / self._labels if self._labels else None
        return Effect(loss, increase, accuracy, self._apart / self.count)


def divergence_of(model: nn.Module, samples: Samples, loss: Loss) -> Divergence:
    """The divergence of outputs that goes with a loss; half the squared distance where none does.

    Args:
        model: the dense network.
        samples: some of which are run.
        loss: of the network.
    """
    inputs, targets = next(samples.batches(FEW))
    with evaluating(model):
        outputs = forward(model, inputs)
    try:
        return choose(loss, None, False, outputs, targets)
    except ValueError:
        return Squares()
