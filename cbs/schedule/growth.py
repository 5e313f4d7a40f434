"""How a sparsity grows from one pruning to the next: the schedule of iterative pruning, as a value."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any

GROWTHS = ("exponential", "linear")
DELETED = ("stay", "shrink", "adapt")


@dataclass(frozen=True)
class Schedule:
    """In how many prunings a sparsity is reached, and what becomes of deleted weights in between.

    With `k_0` the fraction of the weights that a network has before (1, or less if it comes with masks) and
    `k_S` the one asked for, stage `s` of `S` leaves

        exponential:  k_s = k_0 (k_S / k_0)^(s / S)      every stage deletes the same fraction of what is left
        linear:       k_s = k_0 + (k_S - k_0) s / S      every stage deletes the same number

    Optimal Brain Damage (LeCun et al. 1990, section 3) names two variants of what becomes of weights that a
    stage has deleted. Here the last stage deletes for good in any case, and masks that the network came with
    never give way.

    - `stay`: they stay deleted, and the next stage chooses among the rest.
    - `shrink`: no weight is deleted yet. Those chosen are multiplied by `shrink` and trained on like all
      others, and the next stage chooses among all: this project's reading of "decreased instead of deleted".
      Where a method moves the survivors they go as far: to `shrink` of the old and `1 - shrink` of the new.
    - `adapt`: they start again from zero and are trained on like all others, and the next stage chooses among
      all.

    Attributes:
        stages: number of prunings.
        growth: `exponential` or `linear`.
        deleted: `stay`, `shrink` or `adapt`.
        shrink: what is left of a weight that shrinks, in [0, 1).

    Raises:
        ValueError: in one line, for a value outside its range.
    """

    stages: int = 1
    growth: str = "exponential"
    deleted: str = "stay"
    shrink: float = 0.5

    def __post_init__(self) -> None:
        from cbs.request import check_name
        from solvers.control import is_number

        if not isinstance(self.stages, Integral) or isinstance(self.stages, bool) or self.stages < 1:
            raise ValueError(f"stages must be a whole number >= 1, got {self.stages!r}")
        check_name("growth", self.growth, GROWTHS)
        check_name("deleted", self.deleted, DELETED)
        if not is_number(self.shrink) or not 0 <= self.shrink < 1:
            raise ValueError(f"shrink must lie in [0, 1), got {self.shrink!r}")
        if self.deleted != "stay" and self.stages == 1:
            raise ValueError(
                f"deleted {self.deleted!r} is about what happens between stages; give stages of at least 2"
            )

    def sparsities(self, start: float, end: float) -> list[float]:
        """The sparsity of every stage, the last one exactly `end`.

        Args:
            start: fraction pruned before, in [0, 1].
            end: fraction asked for, in [0, 1).
        """
        before, after, S = 1.0 - min(start, end), 1.0 - end, int(self.stages)
        if self.growth == "linear":
            kept = [before + (after - before) * s / S for s in range(1, S)]
        else:
            kept = [before * (after / before) ** (s / S) for s in range(1, S)]
        return [*(1.0 - k for k in kept), end]

    def to_dict(self) -> dict[str, Any]:
        """Every field, ready for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
