"""What a method hands to `prune()`: what becomes of every layer, before surgery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cbs.change import Change, Weights
from cbs.watch import Watch
from solvers import Solution, Status
from solvers.hessian import Array

if TYPE_CHECKING:
    from cbs.network.layers import Layer
    from cbs.network.network import Network
    from cbs.selection import NeuronChoice
    from solvers.problem import Mask


@dataclass(frozen=True)
class LayerPlan:
    """What becomes of a layer, and how it was found.

    Attributes:
        change: mask and new parameters.
        solver: what found it.
        status: why that stopped, a value of `solvers.Status`.
        seconds: wall time of the layer.
        row_seconds: `[m]` wall time of every row, where rows were solved apart.
        stats: counts and choices of the solver.
    """

    change: Change
    solver: str
    status: str = "feasible"
    seconds: float = 0.0
    row_seconds: Array | None = None
    stats: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def solved(cls, change: Change, solution: Solution, watch: Watch, share: float = 1.0) -> LayerPlan:
        """The plan of a layer that a solver answered, alone or as a share of several."""
        rows = solution.rows if share == 1.0 and len(solution.mask) == len(change.mask) else None
        return cls(
            change, solution.solver,
            Status.INTERRUPTED.value if watch.interrupted else solution.status.value,
            share * solution.seconds,
            None if rows is None else rows.seconds,  # those of a layer laid out in one row are none of its
            solution.stats,
        )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What becomes of every layer, and what the method's own model of the loss says about them.

    Attributes:
        layers: in the network's order.
        prediction: loss increase of the method's model, without its damping; None if it has none.
        model: that model in words, or None.
        stats: counts, choices and repairs of the method.
        neurons: where neurons are pruned, what goes of every group.
    """

    layers: list[LayerPlan]
    prediction: float | None = None
    model: str | None = None
    stats: Mapping[str, Any] = field(default_factory=dict)
    neurons: Sequence[NeuronChoice] = ()

    def dead(self, layer: Layer) -> Mask:
        """`[m]`, True for rows of a layer whose neurons go: they are zero, and feed nothing."""
        found = np.zeros(layer.shape[0], dtype=bool)
        for choice in self.neurons:
            if layer.name in choice.group.rows:
                found[choice.group.rows[layer.name][choice.removed]] = True
        return found

    def felt(self, network: Network) -> list[Weights]:
        """Every layer's parameters after pruning, but for dead rows, which nothing feels: as they were."""
        return [
            unmoved(self.dead(layer), dense, step.change.weights)
            for layer, dense, step in zip(network.layers, network.dense, self.layers, strict=True)
        ]


def unmoved(dead: Mask, dense: Weights, moved: Weights) -> Weights:
    """`moved` with the rows that are dead, `[m]`, as they were in the dense layer."""
    if not dead.any():
        return moved
    W = np.where(dead[:, None], dense.W, moved.W)
    if moved.bias is None or dense.bias is None:
        return Weights(W, moved.bias)
    return Weights(W, np.where(dead, dense.bias, moved.bias))
