"""What became of a network stage by stage: one record a pruning of those that led to a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cbs.network.evaluate import Evaluation

EVALUATIONS = ("pruned", "test_pruned", "refitted", "test_refitted", "tuned", "test_tuned")
"""Fields of a stage that hold loss and accuracy."""


@dataclass(frozen=True)
class Stage:
    """One pruning of the network, of those that led to a result.

    Attributes:
        method: what pruned it, in words: name, curvature, selection, compensation and so on.
        sparsity: achieved when it was done.
        seconds: wall time, curvature included.
        shared_seconds: of these, for curvatures and whatever else other methods use as well; what computing
            them took, whoever did it.
        stats: counts, choices and repairs.
        value: of its masks by the layer objectives, see `Certified`, against the network that it pruned.
        pruned: loss and accuracy after it, on the calibration data.
        test_pruned: the same on the test data, or None.
        divergence: mean divergence of the outputs from the dense network's, before the network refit, on the
            calibration samples that the refit held back (on all if none); None if there was no refit.
        refitted_divergence: the same after it.
        refitted: loss and accuracy after the network refit, on the calibration data; None if there was none.
        test_refitted: the same on the test data, or None.
        refit: what was matched, moved and held back, every step, and why it ended.
        reselection: every round in which masks were chosen anew by the network's curvature, and why it ended;
            or why there was none. Sparsity, value, `pruned` and `test_pruned` are then after it.
        tuned: loss and accuracy after fine-tuning, on the calibration data; None if there was none.
        test_tuned: the same on the test data, or None.
        norms: names of the batch norms whose running statistics were recomputed.
        epochs: of `cbs.train` in that fine-tuning; None where a function of the user's trained.
        refit_seconds: of `seconds`, those of the network refit.
        tuning_seconds: of `seconds`, those of fine-tuning.
    """

    method: Mapping[str, str]
    sparsity: float
    seconds: float
    shared_seconds: float
    stats: Mapping[str, Any]
    value: float | None = None
    pruned: Evaluation | None = None
    test_pruned: Evaluation | None = None
    divergence: float | None = None
    refitted_divergence: float | None = None
    refitted: Evaluation | None = None
    test_refitted: Evaluation | None = None
    refit: Mapping[str, Any] | None = None
    reselection: Mapping[str, Any] | None = None
    tuned: Evaluation | None = None
    test_tuned: Evaluation | None = None
    epochs: int | None = None
    refit_seconds: float = 0.0
    tuning_seconds: float = 0.0
    norms: list[str] = field(default_factory=list)

    @property
    def moved(self) -> bool:
        """Whether more than weights and biases of the pruned layers moved."""
        again = self.reselection is not None and "rounds" in self.reselection
        return self.tuned is not None or self.refitted is not None or again or bool(self.norms)

    @property
    def end(self) -> Evaluation | None:
        """Loss and accuracy on the calibration data when the stage was over."""
        return self.tuned or self.refitted or self.pruned

    @property
    def test_end(self) -> Evaluation | None:
        """The same on the test data, or None."""
        return self.test_tuned or self.test_refitted or self.test_pruned

    @property
    def pruning_seconds(self) -> float:
        """Of `seconds`, those of neither refit nor fine-tuning."""
        return self.seconds - self.refit_seconds - self.tuning_seconds
