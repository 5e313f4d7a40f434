"""How far to go: a compensation's move at the length that costs least true loss (an inexact line search).

A model of the loss holds near the dense weights only. Where much is pruned its minimum lies far away, and
going there can do more harm than staying: in the table of the Combinatorial Brain Surgeon, MLPNet without
98% of its weights has an accuracy of 66.64% where survivors stay, and of 55.45% where they move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from cbs.compensation.closed_form import Compensation, Nothing, Survivors

if TYPE_CHECKING:
    from cbs.change import Weights
    from cbs.curvature.base import Curvature
    from cbs.plan import LayerPlan
    from cbs.selection.base import Choice, Job, Selection
    from solvers.hessian import Array

PARTS = 8
"""Parts into which the way is divided at first."""
HALVINGS = 4
"""How often the parts beside the best point are halved then: lengths are known to 1/128."""


@dataclass(frozen=True)
class Scaled(Compensation):
    """The weights `w + t (w* - w)`, w* where another compensation goes and t of least true loss in [0, 1].

    What is pruned stays zero at every t. The loss is that of the whole network on at most
    `cbs.selection.trial.SAMPLES` of the calibration samples, and t one number for all layers: the best of
    0, 1/8, .., 1, then the best of the two middles beside it, four times over. So the loss on the sample is
    never above that of staying (t = 0), nor of going all the way (t = 1); at equal loss the shorter way is
    kept. t is in the result's history, as `step`. Yu et al. (2022) scale CBS-U down where it hurts.

    Attributes:
        inner: the compensation that is scaled.
    """

    inner: Compensation = field(default_factory=Survivors)

    requires: ClassVar[tuple[str, ...]] = ("targets",)

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Compensation) or isinstance(self.inner, Scaled | Nothing):
            raise ValueError(f"inner must be a compensation that moves weights, got {self.inner!r}")

    @property
    def words(self) -> str:  # type: ignore[override]
        """See `Compensation.words`."""
        return f"{self.inner.words}, scaled by the loss"

    def refuses(self, curvature: Curvature) -> str | None:
        """See `Compensation.refuses`."""
        return self.inner.refuses(curvature)

    def unsuited(self, selection: Selection) -> str | None:
        """See `Compensation.unsuited`."""
        return self.inner.unsuited(selection)

    def move(self, choice: Choice) -> Array:
        """See `Compensation.move`: all the way."""
        return self.inner.move(choice)

    def settle(self, job: Job, plans: Sequence[LayerPlan]) -> list[LayerPlan]:
        """See `Compensation.settle`: as far as pays."""
        from cbs.network.evaluate import mean_loss
        from cbs.network.surgery import clone, write
        from cbs.selection.trial import SAMPLES

        network = job.network
        model, samples = clone(network.model), network.samples.choose(SAMPLES, job.request.seed)

        def at(t: float) -> list[LayerPlan]:
            return [
                replace(plan, change=replace(plan.change, weights=_between(dense, plan, t)))
                for dense, plan in zip(network.dense, plans, strict=True)
            ]

        def loss(t: float) -> float:
            for layer, plan in zip(network.layers, at(t), strict=True):
                write(layer.of(model), plan.change.weights)
            return mean_loss(model, samples, network.loss)

        job.stats["step"] = least_step(loss)
        return at(job.stats["step"])


def least_step(loss: Callable[[float], float], parts: int = PARTS, halvings: int = HALVINGS) -> float:
    """The point of least loss in [0, 1], of a grid that is refined beside the best; the least of equals.

    Args:
        loss: of a point; a value that is not finite is the worst there is.
        parts: of the first grid.
        halvings: rounds in which the two middles beside the best point are tried.
    """
    found: dict[float, float] = {}

    def best(points: Sequence[float]) -> float:
        for t in points:
            if 0.0 <= t <= 1.0 and t not in found:
                value = loss(t)
                found[t] = value if math.isfinite(value) else math.inf
        return min(found, key=lambda t: (found[t], t))

    t, width = best([i / parts for i in range(parts + 1)]), 1.0 / parts
    for _ in range(halvings):
        width /= 2
        t = best([t - width, t + width])
    return t


def _between(dense: Weights, plan: LayerPlan, t: float) -> Weights:
    """`dense + t (moved - dense)`, with what is pruned at zero; exactly what was moved to at t = 1."""
    import numpy as np

    mask, moved = plan.change.mask, plan.change.weights
    if t == 1.0:
        return moved
    W = np.where(mask, 0.0, dense.W + t * (moved.W - dense.W))
    if moved.bias is None or dense.bias is None:
        return replace(moved, W=W)
    return replace(moved, W=W, bias=dense.bias + t * (moved.bias - dense.bias))
