"""Dropout-based damage of neurons: the loss regressed on random drop masks (Harang & Sanders 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cbs.selection.base import Job, NeuronChoice, NeuronSelection

if TYPE_CHECKING:
    from cbs.network.network import Network
    from cbs.network.neurons import Neurons
    from cbs.watch import Watch
    from solvers.hessian import Array
    from solvers.problem import Mask

SAMPLES = 1_000
"""Samples of the data, at most, that a masked network's loss is taken on."""
LEAST = 256
"""Masks that are drawn at the least, where no number is given."""
EACH = 4
"""Masks for every neuron, where no number is given."""


@dataclass(frozen=True)
class NeuronDropout(NeuronSelection):
    """Prune the neurons whose absence costs least on average over random absences of the others.

    Every mask drops each neuron with probability `fraction`, which sets the columns that it feeds to zero.
    The network's losses `L_s` over the masks `x_s` are fitted by least squares,

        L_s = a + sum_i b_i x_si + e_s,     var b = s^2 (X'X)^-1,     s^2 = sum e_s^2 / (masks - neurons - 1)

    and the neurons of the least `b_i` go. Coefficients, their standard errors and the share of the variance
    that the fit explains are in the result's stats. Only the paper's abstract was at hand: the law of the
    masks and the ranking by coefficients are this project's reading.

    Attributes:
        fraction: probability that a mask drops a neuron, between 0 and 1.
        masks: how many are drawn; None for four for every neuron, and 256 at the least.
    """

    fraction: float = 0.1
    masks: int | None = None

    requires: ClassVar[tuple[str, ...]] = ("inputs", "targets")
    words: ClassVar[str] = "dropout damage, by regression"

    def __post_init__(self) -> None:
        number = isinstance(self.fraction, int | float) and not isinstance(self.fraction, bool)
        if not number or not 0 < self.fraction < 1:
            raise ValueError(f"fraction must lie between 0 and 1, got {self.fraction!r}")
        whole = isinstance(self.masks, Integral) and not isinstance(self.masks, bool)
        if self.masks is not None and not (whole and self.masks >= 2):
            raise ValueError(f"masks must be at least 2 or None, and whole, got {self.masks!r}")

    def choose_neurons(
        self, job: Job, groups: Sequence[Neurons], counts: Sequence[int] | int
    ) -> list[NeuronChoice]:
        """See `NeuronSelection.choose_neurons`."""
        from cbs.network.neurons import least

        found = self.damage(job.network, groups, job.request.seed, job.watch)
        removed = least(found.coefficients, counts, job.network.gone)
        job.stats["dropout"] = found.stats()
        return [
            NeuronChoice(group, mask, "dropout", stats={"coefficients": b.tolist(), "errors": e.tolist()})
            for group, mask, b, e in zip(groups, removed, found.coefficients, found.errors, strict=True)
        ]

    def damage(
        self, network: Network, groups: Sequence[Neurons], seed: int, watch: Watch | None = None
    ) -> Damage:
        """The regression of a network's loss on drop masks, computed once for a network and a seed.

        One that the watch cuts short is not kept: a later run measures anew.

        Args:
            network: the dense network.
            groups: its neurons.
            seed: of the masks and of the draw of samples.
            watch: told of the masks; once stopped, the fit is to those whose loss is known.
        """

        def compute() -> Damage:
            neurons = sum(group.count for group in groups)
            masks = max(LEAST, EACH * neurons) if self.masks is None else self.masks
            drops = np.random.default_rng([seed, 0]).random((masks, neurons)) < self.fraction
            losses = Dropped(network, groups, seed).losses(drops, watch)
            found = regress(drops[: len(losses)], losses, [group.count for group in groups])
            if len(losses) < masks:
                raise _CutShort(found)
            return found

        try:
            return network.memo(("dropout", self, seed), compute)
        except _CutShort as cut:
            return cut.found


class _CutShort(Exception):
    """The run was to end before the losses of all masks were known: the fit to those that are."""

    def __init__(self, found: Damage) -> None:
        super().__init__("cut short")
        self.found = found


class Dropped:
    """A copy of a network of which neurons are dropped, by zeros in the columns that they feed.

    Args:
        network: the dense network.
        groups: its neurons.
        seed: of the draw of at most `SAMPLES` of its samples.
    """

    def __init__(self, network: Network, groups: Sequence[Neurons], seed: int) -> None:
        from cbs.network.surgery import clone

        self.model, self.groups = clone(network.model), groups
        self.samples, self.loss = network.samples.choose(SAMPLES, seed), network.loss
        names = dict.fromkeys(name for group in groups for name in group.columns)
        self.weights = {name: self.model.get_parameter(f"{name}.weight") for name in names}
        self.dense = {name: weight.detach().clone() for name, weight in self.weights.items()}

    def loss_without(self, drop: Mask) -> float:
        """The mean loss without some neurons, `drop [neurons]`, group after group."""
        import torch

        from cbs.network.evaluate import mean_loss

        ends = np.cumsum([group.count for group in self.groups])[:-1]
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.dense[name])
            for group, gone in zip(self.groups, np.split(drop, ends), strict=True):
                for name, columns in group.columns.items():
                    weight = self.weights[name]
                    index = torch.from_numpy(columns[gone].ravel()).to(weight.device)
                    weight.view(len(weight), -1)[:, index] = 0.0
        return mean_loss(self.model, self.samples, self.loss)

    def losses(self, drops: Mask, watch: Watch | None = None) -> Array:
        """`[masks]` losses of `drops [masks, neurons]`; of the first ones only, once the watch is stopped."""
        found: list[float] = []
        for drop in drops:
            if watch is not None and len(found) % 16 == 0:
                watch.tell("select", index=0)
                if watch.control.stopped():
                    break
            found.append(self.loss_without(drop))
        return np.array(found)


@dataclass(frozen=True)
class Damage:
    """What a regression of losses on drop masks gives.

    Attributes:
        coefficients: `[count]` of every group, the loss that a neuron's absence adds.
        errors: `[count]` of every group, their standard errors; infinite where there are too few masks.
        intercept: the fitted loss of the whole network.
        explained: share of the losses' variance that the fit explains, R^2.
        masks: how many losses it is of.
    """

    coefficients: list[Array]
    errors: list[Array]
    intercept: float
    explained: float
    masks: int

    def stats(self) -> dict[str, Any]:
        """For a result."""
        errors = np.concatenate(self.errors)
        median = float(np.median(errors)) if errors.size and np.isfinite(errors).all() else None
        return {
            "masks": self.masks,
            "intercept": self.intercept,
            "explained": self.explained,
            "median_error": median,
        }


def regress(drops: Mask, losses: Array, counts: Sequence[int]) -> Damage:
    """Least squares of losses on drop masks, with an intercept.

    Args:
        drops: `[masks, neurons]`, True where dropped.
        losses: `[masks]`.
        counts: neurons of every group.
    """
    masks, neurons = drops.shape
    if not masks:
        nothing = [np.zeros(count) for count in counts]
        return Damage(nothing, [np.full(count, np.inf) for count in counts], math.nan, 0.0, 0)
    X = np.column_stack([np.ones(masks), drops])
    fitted = np.linalg.lstsq(X, losses, rcond=None)[0]
    left = losses - X @ fitted
    errors = np.full(neurons, np.inf)
    if (spare := masks - neurons - 1) > 0:
        inverse = np.linalg.pinv(X.T @ X)
        errors = np.sqrt(float(left @ left) / spare * np.maximum(np.diagonal(inverse)[1:], 0.0))
    spread = float(((losses - losses.mean()) ** 2).sum())
    ends = np.cumsum(counts)[:-1]
    return Damage(
        np.split(fitted[1:], ends), np.split(errors, ends), float(fitted[0]),
        1.0 - float(left @ left) / spread if spread else 1.0, masks,
    )  # fmt: skip
