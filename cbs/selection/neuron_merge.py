"""Neuron merging: the pair whose merging costs least goes first, and is one neuron from then on.

Taking neuron i into neuron j removes i and refits what j feeds, and the bias, to what both fed before: exact
least squares on the consumers' inputs. That is Srinivas and Babu's merging of similar neurons (2015), with
scales as in neuron merging (Kim et al. 2020) where a neuron feeds one column, and with a full matrix where it
feeds several, such as the places of a convolution's kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from cbs.curvature.base import Gram
from cbs.selection.base import Job, NeuronChoice, NeuronSelection

if TYPE_CHECKING:
    from cbs.curvature.base import Curvature
    from cbs.network.neurons import Neurons
    from cbs.quadratic import Quadratic
    from solvers.hessian import Array
    from solvers.problem import Mask

SMALL = 1e-12
"""Added to the diagonal of a neuron's own curvature, relative to its mean, where it can't be inverted."""


@dataclass(frozen=True)
class NeuronMerge(NeuronSelection):
    """Merge pairs of neurons, the cheapest first, until as many are gone as are to go.

    With S the consumer's Gram of which the bias is eliminated and `W_i [m, width]` what neuron i feeds now,
    taking i into j costs

        1/2 tr(W_i (S_ii - S_ij S_jj^-1 S_ji) W_i'),    and then    W_j <- W_j + W_i S_ij S_jj^-1

    the weighted residual of i's outputs on j's and a constant; over several consumers these add up. Costs are
    those of the weights as earlier merges left them. Merges are in every choice's stats, so that
    `cbs.compensation.merging.Merged` repeats them; `Survivors` refits everything that stays instead.
    """

    requires: ClassVar[tuple[str, ...]] = ("inputs",)
    words: ClassVar[str] = "merging, cheapest pair first"
    merges: ClassVar[bool] = True

    def refuses(self, curvature: Curvature) -> str | None:
        """See `Selection.refuses`."""
        if isinstance(curvature, Gram):
            return None
        return (
            f"NeuronMerge fits outputs of neurons to each other's, which takes Gram(), not {curvature.words}"
        )

    def choose_neurons(
        self, job: Job, groups: Sequence[Neurons], counts: Sequence[int] | int
    ) -> list[NeuronChoice]:
        """See `NeuronSelection.choose_neurons`; where groups share a budget, costs count by rows' scales."""
        from cbs.curvature.output import row_scales

        models = {model.name: model for model in job.quadratics}
        scales = None
        if isinstance(counts, int):
            names = [layer.name for layer in job.network.layers]
            scales = dict(zip(names, row_scales(job.network), strict=True))
        merging = [
            Merging(group, models, out, scales) for group, out in zip(groups, job.network.gone, strict=True)
        ]
        if isinstance(counts, int):
            self._together(job, merging, counts)
        else:
            for group, count in zip(merging, counts, strict=True):
                while group.removed.sum() < count:
                    job.watch.tell("select", group.name)
                    group.merge()
        return [
            NeuronChoice(
                group, each.removed, "merging", stats={"merges": each.merges, "cost": float(each.cost)}
            )
            for group, each in zip(groups, merging, strict=True)
        ]

    def _together(self, job: Job, merging: Sequence[Merging], count: int) -> None:
        """Merge in whichever group has the cheapest pair, one neuron of each staying."""
        while sum(int(group.removed.sum()) for group in merging) < count:
            job.watch.tell("select")
            min(merging, key=lambda group: group.cheapest[0]).merge()


class Merging:
    """One group of neurons whose pairs are merged.

    Args:
        group: the neurons.
        models: of the layers by name, with their Grams.
        gone: `[count]`, True for neurons that are gone already.
        scales: `[rows]` of every layer by name, by which costs count; None for ones.

    Attributes:
        removed: `[count]`, True where gone.
        merges: pairs (i, j): neuron i went into neuron j.
        cost: of all merges, as `NeuronMerge` counts them.
    """

    def __init__(
        self,
        group: Neurons,
        models: dict[str | None, Quadratic],
        gone: Mask,
        scales: dict[str, Array] | None = None,
    ) -> None:
        self.name, self.removed = group.name, gone.copy()
        self.merges: list[list[int]] = []
        self.cost = 0.0
        self._feeds = [
            Feed(models[name], columns, None if scales is None else scales[name])
            for name, columns in group.columns.items()
        ]
        self.costs = np.full((group.count, group.count), np.inf)
        for i in np.flatnonzero(~gone):
            self._price(int(i))

    @property
    def cheapest(self) -> tuple[float, int, int]:
        """The cost of the cheapest pair, and the pair; infinite where a single neuron is left."""
        i, j = divmod(int(self.costs.argmin()), len(self.costs))
        return float(self.costs[i, j]), i, j

    def merge(self) -> None:
        """Merge the cheapest pair."""
        cost, i, j = self.cheapest
        if not np.isfinite(cost):
            raise ValueError(f"layer {self.name!r} has one neuron left, which can't be merged")
        for feed in self._feeds:
            feed.merge(i, j)
        self.removed[i] = True
        self.costs[i], self.costs[:, i] = np.inf, np.inf
        self._price(j)
        self.merges.append([i, j])
        self.cost += cost

    def _price(self, i: int) -> None:
        """What merging a neuron into every other one costs."""
        into = np.flatnonzero(~self.removed)
        into = into[into != i]
        self.costs[i, into] = sum(feed.prices(i, into) for feed in self._feeds)


class Feed:
    """What a group's neurons feed in one layer: columns of its matrix, and the Gram of these.

    Args:
        model: of the layer, with a Gram.
        columns: `[count, width]` the columns of every neuron.
        scale: `[m]` factor of every row's cost, or None.
    """

    def __init__(self, model: Quadratic, columns: NDArray[np.int64], scale: Array | None = None) -> None:
        H = model.H
        assert isinstance(H, np.ndarray)
        flat = columns.ravel()
        S = H[np.ix_(flat, flat)]
        if model.bias and H[-1, -1] > 0:
            S = S - np.outer(H[flat, -1], H[flat, -1]) / H[-1, -1]
        count, self.width = columns.shape
        self._S = S.reshape(count, self.width, count, self.width)
        self.W = model.W[:, flat].reshape(len(model.W), count, self.width).transpose(1, 0, 2).copy()
        """`[count, m, width]` what every neuron feeds now."""
        self._scale = None if scale is None else scale[:, None]
        self._inverse = np.stack([_inverse(self._S[j, :, j]) for j in range(count)])

    def prices(self, i: int, into: NDArray[np.int64]) -> Array:
        """`[into]` the cost of merging neuron i into each of the others."""
        W = self.W[i]
        M = W.T @ (W if self._scale is None else self._scale * W)
        across = self._S[i][:, into].transpose(1, 0, 2)
        explained = across @ self._inverse[into] @ across.transpose(0, 2, 1)
        found = (M * self._S[i, :, i]).sum() - (M * explained).sum(axis=(1, 2))
        return np.asarray(np.maximum(0.5 * found, 0.0))

    def merge(self, i: int, j: int) -> None:
        """Let neuron j feed what i fed, as well as it can."""
        self.W[j] += self.W[i] @ self._S[i, :, j] @ self._inverse[j]
        self.W[i] = 0.0


def _inverse(S: Array) -> Array:
    """The inverse of a neuron's own curvature, which is lifted where it is singular, as of a dead neuron."""
    from scipy import linalg

    size = float(np.trace(S)) / len(S)
    lift, one = 0.0, np.eye(len(S))
    for power in range(6):
        try:
            factor = linalg.cho_factor(S + lift * one, lower=True)
            return np.asarray(linalg.cho_solve(factor, one))
        except linalg.LinAlgError:
            lift = SMALL * 100.0**power * (size if size > 0 else 1.0)
    return np.zeros(S.shape)
