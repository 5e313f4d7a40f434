"""What a method hands to `prune()`: what becomes of every layer, before surgery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cbs.change import Change
from cbs.watch import Watch
from solvers import Solution, Status
from solvers.hessian import Array


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
    """

    layers: list[LayerPlan]
    prediction: float | None = None
    model: str | None = None
    stats: Mapping[str, Any] = field(default_factory=dict)
