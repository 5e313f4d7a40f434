"""Early stopping: a part of the data is held back, and tells after which epoch a training was best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import nn

from cbs.data import Samples, gather
from cbs.network.evaluate import evaluating, forward
from cbs.network.losses import Loss, batch_loss
from solvers.control import is_number


@dataclass
class EarlyStopping:
    """Judges a network by its loss on samples that are held back from its training.

    Attributes:
        samples: held back.
        loss: of a batch.
        patience: how many epochs in a row may be no better than the best before it is time to stop; None
            for any number.
        best: the least loss so far.
        worse: how many epochs have been no better since.
    """

    samples: Samples
    loss: Loss
    patience: int | None = None
    best: float = math.inf
    worse: int = 0

    def measure(self, model: nn.Module) -> float:
        """Mean loss in evaluation mode; the modules' modes are left as they were."""
        total = 0.0
        with evaluating(model):
            for inputs, targets in self.samples.batches():
                found = batch_loss(self.loss, forward(model, inputs), targets).mean()
                total += float(found) * len(inputs)
        return total / len(self.samples)

    def better(self, loss: float) -> bool:
        """Take in what was measured: whether it is the best so far. A loss that is NaN never is."""
        if loss < self.best:
            self.best, self.worse = loss, 0
            return True
        self.worse += 1
        return False

    @property
    def over(self) -> bool:
        """Whether it is time to stop."""
        return self.patience is not None and self.worse >= self.patience


def hold_back(data: Samples, validation: Any, seed: int) -> tuple[Samples, Samples | None]:
    """What to train on, and what to judge by.

    Args:
        data: all there is to train on.
        validation: other data, in any form that `cbs.prune` takes; or a fraction of the data, in (0, 1),
            which is drawn by the seed and not trained on; or None.
        seed: of the draw.

    Raises:
        ValueError: in one line, for a fraction that leaves nothing of one part, or data that is none.
    """
    if validation is None:
        return data, None
    if not is_number(validation):
        try:
            return data, gather(validation, seed=seed)
        except ValueError as error:
            raise ValueError(f"validation: {error}; a fraction of the data may be given, too") from None
    if not 0 < validation < 1:
        raise ValueError(f"validation must be data, or a fraction of it in (0, 1), got {validation!r}")
    count = round(validation * len(data))
    if not 0 < count < len(data):
        raise ValueError(
            f"validation {validation:g} of {len(data)} samples is {count}; at least one sample must be held "
            "back, and one be left to train on"
        )
    held = np.zeros(len(data), dtype=bool)
    held[np.random.default_rng(seed).choice(len(data), size=count, replace=False)] = True
    kept, back = (torch.from_numpy(np.flatnonzero(part)) for part in (~held, held))
    return _part(data, kept), _part(data, back)


def check_patience(patience: Any, validation: Any) -> None:
    """Refuse a patience that is no number of epochs, or has nothing to wait for.

    Raises:
        ValueError: in one line.
    """
    if patience is None:
        return
    if not isinstance(patience, Integral) or isinstance(patience, bool) or patience < 1:
        raise ValueError(f"patience must be a whole number of epochs >= 1 or None, got {patience!r}")
    if validation is None:
        raise ValueError(
            f"patience {patience} is about a loss on data that is held back; give validation, such as 0.1"
        )


def _part(samples: Samples, index: torch.Tensor) -> Samples:
    return samples.take(index)
