"""The networks of these experiments, their data, and how a pruned one is measured."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbs.data import Samples
from cbs.zoo import trained

KNOWN = {"mlpnet": ("mlpnet", 5_000), "resnet20": ("resnet20", 500), "wide": ("mlp-300", 5_000)}
"""Names in the zoo, and how many training images no calibration sees: on them divergences are measured."""


@dataclass(frozen=True)
class Case:
    """A trained network and its data.

    Attributes:
        name: of the network.
        model: trained.
        layers: those that are pruned; None for all.
        train: what is calibrated on, in the order of the seed.
        held_out: what divergences are measured on.
        test: what accuracies are measured on.
    """

    name: str
    model: nn.Module
    layers: list[str] | None
    train: Samples
    held_out: Tensor
    test: Samples

    def calibration(self, count: int) -> tuple[Tensor, Tensor]:
        """The first `count` of the training images."""
        return self.train.inputs[:count], self.train.targets[:count]

    def measured(self, pruned: nn.Module, tested: int | None = None) -> dict[str, float]:
        """Accuracy and loss on test images, all or the first; divergence on those held out."""
        dense, here = (_outputs(model, self.held_out) for model in (self.model, pruned))
        p, q = dense.log_softmax(dim=1), here.log_softmax(dim=1)
        inputs, targets = self.test.inputs[:tested], self.test.targets[:tested]
        outputs = _outputs(pruned, inputs)
        return {
            "accuracy": float((outputs.argmax(dim=1) == targets).double().mean()),
            "loss": float(F.cross_entropy(outputs, targets)),
            "divergence": float((p.exp() * (p - q)).sum(dim=1).mean()),
        }


@lru_cache(maxsize=2)
def case(name: str, seed: int) -> Case:
    """A network by name, its training images in the order of a seed."""
    known, held = KNOWN[name]
    found = trained(known)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(found.train)))
    chosen = Samples(*(part[order[:-held]] for part in (found.train.inputs, found.train.targets)))
    return Case(name, found.model, found.layers, chosen, found.train.inputs[order[-held:]], found.test)


@torch.no_grad()
def _outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    return torch.cat([model(part) for part in torch.split(inputs, 500)]).double()
