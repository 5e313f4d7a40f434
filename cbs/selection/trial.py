"""The true loss of masks that are only tried: what CBS-S and RMP keep their best by."""

from __future__ import annotations

from collections.abc import Sequence

from cbs.network.evaluate import mean_loss
from cbs.network.network import Network
from cbs.network.surgery import clone, zero
from solvers.problem import Mask

SAMPLES = 5_000
"""Size of the sample that the published code scores masks on."""


class Trial:
    """A copy of the network whose weights are masked, without compensation, and put back.

    Args:
        network: the dense network.
        seed: of the draw of at most `SAMPLES` of its samples.
    """

    def __init__(self, network: Network, seed: int) -> None:
        self.model = clone(network.model)
        self.samples = network.samples.choose(SAMPLES, seed)
        self.loss = network.loss
        self.weights = [layer.of(self.model).weight for layer in network.layers]
        self.dense = [layer.weight for layer in network.layers]

    def __call__(self, index: Sequence[int], masks: Sequence[Mask]) -> float:
        """Mean loss with some layers masked; they stay so until they are masked anew.

        Args:
            index: which layers.
            masks: `[m, n]` for every one of them, True where pruned.
        """
        for i, mask in zip(index, masks, strict=True):
            zero(self.weights[i], self.dense[i], mask)
        return mean_loss(self.model, self.samples, self.loss)
