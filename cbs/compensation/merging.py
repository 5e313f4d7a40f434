"""What merging neurons leaves: what a merged neuron fed is fed by the one that it went into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cbs.compensation.closed_form import Compensation
from cbs.curvature.base import Gram

if TYPE_CHECKING:
    from cbs.curvature.base import Curvature
    from cbs.selection.base import Choice, Selection
    from solvers.hessian import Array


@dataclass(frozen=True)
class Merged(Compensation):
    """The merges of `cbs.selection.neuron_merge`, one after the other: `W_j <- W_j + W_i S_ij S_jj^-1`.

    The bias of a layer that is fed moves to where the Gram has its least for the weights' whole move `D`:
    `-D h / H_bb`, with h the Gram's column of the bias. All other weights stay.
    """

    words: ClassVar[str] = "the neurons merged into, and bias"

    def refuses(self, curvature: Curvature) -> str | None:
        """See `Compensation.refuses`."""
        if isinstance(curvature, Gram):
            return None
        return f"Merged needs a layer's inputs, which {curvature.words} has not; take Gram()"

    def unsuited(self, selection: Selection) -> str | None:
        """See `Compensation.unsuited`."""
        if selection.merges:
            return None
        return f"Merged takes merges of neurons, as of NeuronMerge(), not {selection.words}"

    def move(self, choice: Choice) -> Array:
        """See `Compensation.move`."""
        from cbs.selection.neuron_merge import Feed

        model = choice.quadratic
        W = model.W.copy()
        for neurons in choice.neurons:
            columns = neurons.group.columns.get(model.name or "")
            if columns is None:
                continue
            W[:, columns[neurons.removed].ravel()] = 0.0  # those gone before were merged into none
            feed = Feed(model, columns)
            for i, j in neurons.stats["merges"]:
                feed.merge(i, j)
            left = ~neurons.removed
            W[:, columns[left].ravel()] = feed.W[left].transpose(1, 0, 2).reshape(len(W), -1)
        if model.bias:
            H = model.H
            assert isinstance(H, np.ndarray)
            W[:, -1] = model.W[:, -1] - (W - model.W)[:, :-1] @ H[:-1, -1] / H[-1, -1]
        return np.where(model.join(choice.masks), 0.0, W)
