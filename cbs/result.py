"""What a pruning gives back: the model, and how far it is from the best that could be done."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, nn

from cbs.network import surgery
from cbs.network.evaluate import Evaluation
from solvers import Bounds
from solvers.summary import between, first, summary


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
        return _gap(self.bound, self.value)


@dataclass(frozen=True)
class LayerResult:
    """A layer.

    Attributes:
        name: of the module.
        shape: of its weight.
        kept: number of weights that are left.
        value: layer objective `1/2 sum_r D_r H D_r'` of the actual move of weights and bias.
        bound: no mask of the layer's budget has a smaller one, whatever its survivors; None if not
            known. When all layers share one budget: no mask with as many pruned in every row.
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
        return _gap(self.bound, self.value)


@dataclass(frozen=True)
class PruneResult:
    """A pruned network and its certificate in numbers.

    Attributes:
        model: pruned deep copy, its masks in `torch.nn.utils.prune` form.
        method: name of the method.
        asked: sparsity asked for.
        sparsity: sparsity achieved, over the layers pruned.
        scope: where it was to be met.
        budget: pattern of the masks.
        solver: solver asked for.
        status: `optimal` when the gap asked for is proven, else why the search stopped.
        layers: every layer.
        value: sum of the layer objectives; with scope `network` of their rows, each scaled by
            `E[(dL/da_r)^2]`.
        bound: no mask of the budget has a smaller value, whatever its survivors; None if not known.
        seconds: wall time of the method, curvature included, bound and evaluation not.
        predicted: loss increase by the method's own quadratic model, undamped; None if it has none, as
            `joint` without scope `network`.
        prediction_model: that model in words, or None.
        before: loss and accuracy of the dense network on the calibration data.
        after: the same of the pruned network.
        test_before: the same of the dense network on the test data, or None.
        test_after: the same of the pruned network, or None.
        damping: relative damping asked for.
        seed: of every random choice.
        left_out: what holds weights and was not pruned though nobody asked to leave it out: for every
            name why.
        stats: counts, choices and repairs.
        saved: dense weights and biases of the pruned layers.
    """

    model: nn.Module
    method: str
    asked: float
    sparsity: float
    scope: str
    budget: str
    solver: str
    status: str
    layers: list[LayerResult]
    value: float
    bound: float | None
    seconds: float
    predicted: float | None
    prediction_model: str | None
    before: Evaluation
    after: Evaluation
    test_before: Evaluation | None
    test_after: Evaluation | None
    damping: float
    seed: int
    left_out: Mapping[str, str]
    stats: Mapping[str, Any]
    saved: surgery.Saved

    def __repr__(self) -> str:
        where = f"scope {self.scope}" if self.budget == "unstructured" else f"budget {self.budget}"
        before, after = self.test_before or self.before, self.test_after or self.after
        accuracy = ""
        if before.accuracy is not None and after.accuracy is not None:
            on = "test" if self.test_after else "calibration"
            accuracy = f"accuracy {before.accuracy:.2%} -> {after.accuracy:.2%} on {on} data, "
        return summary(
            f"PruneResult: {self.method}, {self.sparsity:.1%} pruned, {where}: {self.status}",
            f"{accuracy}loss {self.before.loss:.4f} -> {self.after.loss:.4f} on calibration data",
            f"{between(self.value, self.bound, self.gap)}, {self.seconds:.2f} s",
            *first([layer.line for layer in self.layers]),
        )

    @property
    def gap(self) -> float | None:
        """`(value - bound) / value`, 0 if both are 0; None where there is no bound."""
        return _gap(self.bound, self.value)

    @property
    def loss_increase(self) -> float:
        """Measured, on the calibration data."""
        return self.after.loss - self.before.loss

    @property
    def masks(self) -> dict[str, Tensor]:
        """For every pruned layer's name a bool tensor of its weight's shape, True where pruned."""
        masks = surgery.read_masks(self.model)
        return {layer.name: masks[layer.name] for layer in self.layers if layer.name in masks}

    @property
    def state(self) -> dict[str, Tensor]:
        """The pruned network's state dict with plain weights, as the dense network's is."""
        return surgery.clone(self.model).state_dict()

    def permanent(self) -> nn.Module:
        """A copy of the pruned model with plain weights instead of masks."""
        return surgery.clone(self.model)

    def undo(self) -> nn.Module:
        """A copy of the model with the dense weights back and no masks."""
        return surgery.undo(surgery.clone(self.model), self.saved)

    def to_dict(self) -> dict[str, Any]:
        """Everything but tensors, ready for JSON."""
        return {**_record(self, skip=("model", "saved")), "loss_increase": self.loss_increase}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], model: nn.Module, saved: surgery.Saved) -> PruneResult:
        """The result of which `to_dict` gave a record.

        Args:
            record: as JSON gives it back.
            model: the pruned network.
            saved: dense weights and biases of the pruned layers.

        Raises:
            ValueError: if it is no such record.
        """
        try:
            given: dict[str, Any] = {f.name: record[f.name] for f in fields(cls) if f.name in record}
            for name in ("before", "after", "test_before", "test_after"):
                given[name] = given[name] and Evaluation(**given[name])
            given["layers"] = [_layer(layer) for layer in given["layers"]]
            result = cls(**given, model=model, saved=saved)
            if result.to_dict() != record:
                raise ValueError("it does not agree with itself")
            for name in ("asked", "sparsity", "value", "seconds"):
                float(record[name])
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"no record of a result ({type(error).__name__}: {error})") from None
        return result


def _layer(record: Mapping[str, Any]) -> LayerResult:
    given = {f.name: record[f.name] for f in fields(LayerResult)}
    rows = [RowResult(**{f.name: row[f.name] for f in fields(RowResult)}) for row in record["rows"]]
    return LayerResult(**given | {"shape": tuple(record["shape"]), "rows": rows})


def _gap(bound: float | None, value: float) -> float | None:
    if bound is None:
        return None
    gap = Bounds(bound, value).gap
    return gap if math.isfinite(gap) else None


def _record(item: Any, skip: tuple[str, ...] = ()) -> Any:
    if isinstance(item, RowResult | LayerResult | PruneResult | Evaluation):
        record = {f.name: _record(getattr(item, f.name)) for f in fields(item) if f.name not in skip}
        if hasattr(item, "gap"):
            record["gap"] = item.gap
        return record
    if isinstance(item, Mapping):
        return {str(key): _record(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [_record(value) for value in item]
    if hasattr(item, "tolist"):
        return _record(item.tolist())
    return item if not isinstance(item, float) or math.isfinite(item) else None
