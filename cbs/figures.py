"""The figures of a result: of rows, of layers, and what was measured and proven of the whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cbs.network.evaluate import Evaluation
from cbs.record import made
from solvers import Bounds
from solvers.summary import between


@dataclass(frozen=True)
class RowResult:
    """A row of a layer.

    Attributes:
        value: its share of the layer's objective.
        bound: no mask with as many pruned in this row has a smaller value; None where not known,
            and where rows have no budget of their own (scope `layer`, columns).
        pruned: number of weights pruned.
        seconds: wall time, where rows were solved apart; else None.
        solver: what found the mask.
    """

    value: float
    bound: float | None
    pruned: int
    seconds: float | None
    solver: str

    @property
    def gap(self) -> float | None:
        """`(value - bound) / value`, 0 if both are 0; None where there is no bound."""
        return gap_of(self.bound, self.value)


@dataclass(frozen=True)
class LayerResult:
    """A layer.

    Attributes:
        name: of the module.
        shape: of its weight.
        kept: number of weights that are left.
        value: layer objective `1/2 sum_r D_r H D_r'` of the actual move of weights and bias.
        bound: no mask of the layer's budget has a smaller one, whatever its survivors; None if not
            known. When all layers share one budget: no mask with as many pruned in every row. When neurons
            are pruned: no choice of as many of its columns, for the rows that are left; those of pruned
            neurons feed nothing and count for nothing, here and in `value` and `measured`.
        measured: half the mean squared change of the layer's output on its dense inputs, by running
            the modules, plus the damping term; agrees with `value`, or else the pruning is an error.
            Where no Gram was computed (neither for the method nor to certify) it is the `value`.
        damping: added to the Gram's diagonal, absolute.
        seconds: wall time of its selection and update.
        solver: what found the mask.
        status: `optimal` when the gap asked for is proven, else why the solver stopped.
        rows: every row.
        stats: counts and choices of the solver.
    """

    name: str
    shape: tuple[int, ...]
    kept: int
    value: float
    bound: float | None
    measured: float
    damping: float
    seconds: float
    solver: str
    status: str
    rows: list[RowResult]
    stats: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"LayerResult {self.line}, {self.status} by {self.solver} in {self.seconds:.2f} s"

    @property
    def line(self) -> str:
        """Name, shape, what is left, and how good that is."""
        left = f"{self.kept} of {math.prod(self.shape)} kept"
        return f"{self.name} {list(self.shape)}: {left}, {between(self.value, self.bound, self.gap)}"

    @property
    def gap(self) -> float | None:
        """`(value - bound) / value`, 0 if both are 0; None where there is no bound."""
        return gap_of(self.bound, self.value)


@dataclass(frozen=True)
class Measured:
    """What running the network says, before the pruning and after it.

    Attributes:
        before: loss and accuracy of the dense network on the calibration data.
        after: the same of the pruned network, refitted and fine-tuned if that was asked for.
        test_before: the same of the dense network on the test data, or None.
        test_after: the same of the pruned network, or None.
        sparsity: achieved, over the layers pruned.
        seconds: wall time of the method, curvature included, bound and evaluation not; of all stages,
            their refits and fine-tuning.
        prediction: loss increase by the method's own quadratic model, undamped, of the last pruning; None if
            it has none, as `joint` without scope `network`.
        prediction_model: that model in words, or None.
    """

    before: Evaluation
    after: Evaluation
    test_before: Evaluation | None
    test_after: Evaluation | None
    sparsity: float
    seconds: float
    prediction: float | None
    prediction_model: str | None

    @property
    def increase(self) -> str:
        """What `loss_increase` is, in words: of data without labels the distance of outputs."""
        return "loss increase" if self.before.measure == "loss" else self.before.measure

    @property
    def loss_increase(self) -> float:
        """On the calibration data."""
        return self.after.loss - self.before.loss


@dataclass(frozen=True)
class Certified:
    """What is proven of the masks.

    After several prunings it is about the last one: what it pruned of the network as it was then. Nothing
    here speaks of weights that were refitted or fine-tuned afterwards.

    Attributes:
        value: sum of the layer objectives; where all layers share one budget, of their rows, each scaled by
            `E[(dL/da_r)^2]`.
        bound: no mask of the budget has a smaller value, whatever its survivors; None if not known.
        status: `optimal` when the gap asked for is proven, else why the search stopped.
    """

    value: float
    bound: float | None
    status: str

    @property
    def gap(self) -> float | None:
        """`(value - bound) / value`, 0 if both are 0; None where there is no bound."""
        return gap_of(self.bound, self.value)


def layer_of(record: Mapping[str, Any]) -> LayerResult:
    """A layer from its record in a report."""
    rows = [made(RowResult, row) for row in record["rows"]]
    return made(LayerResult, record, shape=tuple(record["shape"]), rows=rows)


def gap_of(bound: float | None, value: float) -> float | None:
    """`(value - bound) / value`; None where there is no bound, or nothing to divide by."""
    if bound is None:
        return None
    gap = Bounds(bound, value).gap
    return gap if math.isfinite(gap) else None
