"""The record of a search for the largest sparsity within a limit: every trial, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One pruning of a search.

    Attributes:
        sparsity: that was asked for.
        achieved: over the layers pruned.
        loss_increase: measured, on the data of the search.
        accuracy_drop: measured, as a fraction; None where there are no class labels.
        meets: whether it is within the limits.
        passing: whether it was a cheaper pruning that only narrows the search: greedy instead of searched,
            without proofs.
        seconds: wall time.
    """

    sparsity: float
    achieved: float
    loss_increase: float
    accuracy_drop: float | None
    meets: bool
    passing: bool
    seconds: float


@dataclass(frozen=True)
class Search:
    """How the sparsity of a result was found.

    Attributes:
        data: what was measured: `test` or `calibration`.
        status: `done`, when a sparsity that leaves a few hundredths fewer weights is known to pass the limit,
            or is the most there is; `time_limit`, `interrupted`, or `nothing`, when none was within it.
        trials: in the order in which they were made.
    """

    data: str
    status: str
    trials: Sequence[Trial]

    @classmethod
    def of(cls, record: Mapping[str, Any] | None) -> Search | None:
        """From a record, as JSON gives it back; None of None."""
        if record is None:
            return None
        return cls(**{**record, "trials": [Trial(**trial) for trial in record["trials"]]})

    @property
    def seconds(self) -> float:
        """Wall time of all trials."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def line(self) -> str:
        """In words."""
        return f"{len(self.trials)} trials on {self.data} data in {self.seconds:.1f} s: {self.status}"
