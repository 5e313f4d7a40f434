"""What a pruning gives back: the model, and how far it is from the best that could be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from torch import Tensor, nn

from cbs.figures import Certified, LayerResult, Measured, layer_of
from cbs.history import EVALUATIONS, Stage
from cbs.network import surgery
from cbs.network.eligible import masked, module_of
from cbs.network.evaluate import Evaluation
from cbs.network.kinds.registry import kind_of
from cbs.network.shrink import Removed, shrink, tell_stays
from cbs.record import as_record, evaluated, made
from cbs.request import Request
from cbs.trials import Search
from solvers.summary import between, first, summary

T = TypeVar("T")


@dataclass(frozen=True)
class PruneResult:
    """A pruned network and its certificate in numbers.

    Attributes:
        model: pruned deep copy, its masks in `torch.nn.utils.prune` form.
        request: what was asked.
        layers: every layer.
        measured: losses, accuracies, sparsity and seconds.
        certified: value, bound, gap and status.
        history: every pruning that led here, the first one first.
        left_out: what holds weights and was not pruned though nobody asked to leave it out: for every
            name why.
        saved: dense weights and biases of the pruned layers.
        neurons: where neurons were pruned, for every group of them which are gone, and the rows and columns
            that went with them.
        original: state dict of the dense network where more than these layers moved; else None.
        example: inputs of a few calibration samples, by which the network can be traced, exported and timed;
            not in records.
        search: how the sparsity was found, where a limit was given instead; else None.
    """

    model: nn.Module
    request: Request
    layers: list[LayerResult]
    measured: Measured
    certified: Certified
    history: list[Stage]
    left_out: Mapping[str, str]
    saved: surgery.Saved
    neurons: list[Removed] = field(default_factory=list)
    original: Mapping[str, Tensor] | None = None
    example: Any = None
    search: Search | None = None

    def __repr__(self) -> str:
        asked, measured = self.request, self.measured
        where = f"scope {asked.scope}" if asked.budget == "unstructured" else f"budget {asked.budget}"
        before, after = self.test_before or self.before, self.test_after or self.after
        accuracy = ""
        if before.accuracy is not None and after.accuracy is not None:
            on = "test" if self.test_after else "calibration"
            accuracy = f"accuracy {before.accuracy:.2%} -> {after.accuracy:.2%} on {on} data, "
        return summary(
            f"PruneResult: {self.method}, {self.share} pruned, {where}: {self.status}",
            f"{accuracy}{self.before.measure} {self.before.loss:.4f} -> {self.after.loss:.4f} "
            "on calibration data",
            f"{between(self.value, self.bound, self.gap)}, {measured.seconds:.2f} s",
            *([] if self.search is None else [f"sparsity found in {self.search.line}"]),
            *first([layer.line for layer in self.layers]),
        )

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.request.name

    @property
    def asked(self) -> float:
        """The sparsity asked for."""
        return self.request.fraction

    @property
    def sparsity(self) -> float:
        """The sparsity achieved, over the layers pruned."""
        return self.measured.sparsity

    @cached_property
    def network_sparsity(self) -> float:
        """The share of all the network's parameters that masks prune; each parameter counts once."""
        return surgery.masked_share(self.model)

    @property
    def share(self) -> str:
        """The sparsity achieved, in words: of the weights, or of the neurons where these were pruned."""
        if not self.neurons:
            return f"{100 * self.sparsity:.1f}%"
        gone, count = (sum(n) for n in zip(*((len(g.neurons), g.count) for g in self.neurons), strict=True))
        return f"{100 * gone / count:.1f}% of neurons"

    @property
    def seconds(self) -> float:
        """Wall time of the method."""
        return self.measured.seconds

    @property
    def status(self) -> str:
        """`optimal` when the gap asked for is proven, else why the search stopped."""
        return self.certified.status

    @property
    def value(self) -> float:
        """What the masks cost by the layer objectives; see `Certified`."""
        return self.certified.value

    @property
    def bound(self) -> float | None:
        """No mask of the budget costs less; None if not known."""
        return self.certified.bound

    @property
    def gap(self) -> float | None:
        """`(value - bound) / value`, 0 if both are 0; None where there is no bound."""
        return self.certified.gap

    @property
    def before(self) -> Evaluation:
        """Loss and accuracy of the dense network on the calibration data."""
        return self.measured.before

    @property
    def after(self) -> Evaluation:
        """Loss and accuracy of the pruned network on the calibration data."""
        return self.measured.after

    @property
    def test_before(self) -> Evaluation | None:
        """Loss and accuracy of the dense network on the test data, or None."""
        return self.measured.test_before

    @property
    def test_after(self) -> Evaluation | None:
        """Loss and accuracy of the pruned network on the test data, or None."""
        return self.measured.test_after

    @property
    def loss_increase(self) -> float:
        """Measured, on the calibration data."""
        return self.measured.loss_increase

    @property
    def masks(self) -> dict[str, Tensor]:
        """For every pruned parameter a bool tensor of its shape, True where pruned.

        A module's weight has the module's name, others have their own, such as `lstm.weight_ih_l0`.
        """
        masks = surgery.read_masks(self.model)
        found = dict.fromkeys(
            layer.name if layer.name in masks else module_of(layer.name) for layer in self.layers
        )
        names = [name for name in found if name not in masks]
        own = {name: masks[name] for name in found if name in masks}
        for path, module in self.model.named_modules() if names else ():
            dot = f"{path}." if path else ""
            if kind_of(module) is not None and any(name.startswith(dot) for name in names):
                for key in masked(module):
                    if not key.startswith("bias"):
                        own[path if key == "weight" else dot + key] = getattr(module, f"{key}_mask") == 0
        return own

    @property
    def state(self) -> dict[str, Tensor]:
        """The pruned network's state dict with plain weights, as the dense network's is."""
        return surgery.clone(self.model).state_dict()

    def permanent(self) -> nn.Module:
        """A copy of the pruned model with plain weights instead of masks.

        Where neurons were pruned it is smaller: it has none of their rows, columns and norms, and gives the
        same outputs. Neurons that the network can't do without, see `neurons`, stay in it as zeros, with a
        warning of class `LeftOut`.

        Raises:
            ValueError: if `model` was changed so that a pruned neuron feeds something again.
        """
        tell_stays(self.neurons)
        return shrink(self.model, self.neurons)

    def undo(self) -> nn.Module:
        """A copy of the model with the dense weights back and no masks."""
        model = surgery.undo(surgery.clone(self.model), self.saved)
        if self.original is not None:
            model.load_state_dict(dict(self.original))
        return model

    def to_dict(self) -> dict[str, Any]:
        """Everything but tensors, ready for JSON: what it comes to first, and then its parts."""
        names = (
            "method", "asked", "sparsity", "network_sparsity", "status", "value", "bound", "gap",
            "loss_increase", "seconds",
        )  # fmt: skip
        absent = [name for name in ("neurons", "search") if not getattr(self, name)]
        skip = ("model", "request", "saved", "original", "example", *absent)
        return {
            **{name: getattr(self, name) for name in names},
            "request": self.request.to_dict(),
            **as_record(self, skip=skip),
        }

    @classmethod
    def from_dict(
        cls,
        record: Mapping[str, Any],
        model: nn.Module,
        saved: surgery.Saved,
        original: Mapping[str, Tensor] | None = None,
    ) -> PruneResult:
        """The result of which `to_dict` gave a record; its request has a method by name, a function as text.

        Args:
            record: as JSON gives it back.
            model: the pruned network.
            saved: dense weights and biases of the pruned layers.
            original: state dict of the dense network, which is kept where more than these layers moved.

        Raises:
            ValueError: if it is no such record.
        """
        try:
            measured = evaluated(record["measured"], "before", "after", "test_before", "test_after")
            history = [Stage(**evaluated(stage, *EVALUATIONS)) for stage in record["history"]]
            result = cls(
                model=model, request=Request(**record["request"]), layers=[*map(layer_of, record["layers"])],
                measured=Measured(**measured), certified=made(Certified, record["certified"]),
                history=history, left_out=record["left_out"], saved=saved,
                neurons=[Removed(**group) for group in record.get("neurons", [])],
                original=original if any(stage.moved for stage in history) or _rewritten(model) else None,
                search=Search.of(record.get("search")),
            )  # fmt: skip
            if result.to_dict() != record:
                raise ValueError("it does not agree with itself")
            for name in ("asked", "sparsity", "value", "seconds"):
                float(record[name])
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"no record of a result ({type(error).__name__}: {error})") from None
        return result


def _rewritten(model: nn.Module) -> bool:
    """Whether a network has modules that are rewritten to be pruned, of which `saved` has nothing."""
    return any(kind_of(module) is not None for module in model.modules())
