"""How a sparsity grows from one pruning to the next: the schedule of iterative pruning, as a value."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any

from cbs.names import check_name

GROWTHS = ("exponential", "linear", "cubic", "late")
DELETED = ("stay", "return", "shrink", "adapt")
SAME = 1e-9
"""Largest difference of two sparsities that are the same."""


@dataclass(frozen=True)
class Schedule:
    """In how many prunings a sparsity is reached, and what becomes of deleted weights in between.

    With `k_0` the fraction of the weights that a network has before (1, or less if it comes with masks) and
    `k_S` the one asked for, stage `s` of `S` leaves

        exponential:  k_s = k_0 (k_S / k_0)^(s / S)      every stage deletes the same fraction of what is left
        linear:       k_s = k_0 + (k_S - k_0) s / S      every stage deletes the same number
        cubic:        k_s = k_S + (k_0 - k_S) (1 - s / S)^3      most at first, less and less later on
        late:         k_s = k_h (k_S / k_h)^((s - 1) / (S - 1)), k_h^2 = k_0 k_S      half the way at once

    `cubic` is that of Zhu and Gupta ("To prune, or not to prune", 2017, equation 1). `late` is this
    project's: what costs next to nothing is one shot, and stages are spent where it hurts. Or the sparsities
    are `given`, one a stage.

    Optimal Brain Damage (LeCun et al. 1990, section 3) names two variants of what becomes of weights that a
    stage has deleted, `shrink` and `adapt`. The last stage deletes for good in any case, and masks that the
    network came with never give way.

    - `stay`: they stay deleted, and the next stage chooses among the rest.
    - `return`: they stay deleted, through a refit and fine-tuning too; then the next stage chooses among
      all, in which they start from zero. With a refit they come back where the dense network's outputs ask
      for them, see `cbs.network.network.Network.reference`.
    - `shrink`: no weight is deleted yet. Those chosen are multiplied by `shrink` and trained on like all
      others, and the next stage chooses among all: this project's reading of "decreased instead of deleted".
      Where a method moves the survivors they go as far: to `shrink` of the old and `1 - shrink` of the new.
    - `adapt`: they start again from zero and are trained on like all others, and the next stage chooses among
      all.

    Attributes:
        stages: number of prunings; None for one, or for as many as there are `given`.
        growth: `exponential`, `linear`, `cubic` or `late`.
        deleted: `stay`, `return`, `shrink` or `adapt`.
        shrink: what is left of a weight that shrinks, in [0, 1).
        given: the sparsity of every stage, rising and in [0, 1), instead of a growth. The last one is what a
            request asks for. A stage never has less than what the network comes with.

    Raises:
        ValueError: in one line, for a value outside its range.
    """

    stages: int | None = None
    growth: str = "exponential"
    deleted: str = "stay"
    shrink: float = 0.5
    given: Sequence[float] | None = None

    def __post_init__(self) -> None:
        from solvers.control import is_number

        if self.given is not None:
            object.__setattr__(self, "given", _rising(self.given))
        count = 1 if self.given is None else len(self.given)
        if self.stages is None:
            object.__setattr__(self, "stages", count)
        if not isinstance(self.stages, Integral) or isinstance(self.stages, bool) or self.stages < 1:
            raise ValueError(f"stages must be a whole number >= 1, got {self.stages!r}")
        if self.given is not None and self.stages != count:
            raise ValueError(f"stages must be {count}, as many as sparsities are given, got {self.stages}")
        check_name("growth", self.growth, GROWTHS)
        if self.given is not None and self.growth != "exponential":
            raise ValueError(
                f"growth {self.growth!r} is for sparsities that are not given; drop one of the two"
            )
        check_name("deleted", self.deleted, DELETED)
        if not is_number(self.shrink) or not 0 <= self.shrink < 1:
            raise ValueError(f"shrink must lie in [0, 1), got {self.shrink!r}")
        if self.deleted != "stay" and self.stages == 1:
            raise ValueError(
                f"deleted {self.deleted!r} is about what happens between stages; give stages of at least 2"
            )

    @property
    def count(self) -> int:
        """Number of prunings."""
        assert self.stages is not None
        return int(self.stages)

    def sparsities(self, start: float, end: float) -> list[float]:
        """The sparsity of every stage, the last one exactly `end`.

        Args:
            start: fraction pruned before, in [0, 1].
            end: fraction asked for, in [0, 1).

        Raises:
            ValueError: if the sparsities are given, and end with another.
        """
        before, after, S = 1.0 - min(start, end), 1.0 - end, self.count
        if self.given is not None:
            if abs(self.given[-1] - end) > SAME:
                raise ValueError(
                    f"stages are given to end with sparsity {self.given[-1]:g}, but sparsity is {end:g}; "
                    "give that as the last one"
                )
            return [*(max(given, min(start, end)) for given in self.given[:-1]), end]
        if self.growth == "linear":
            kept = [before + (after - before) * s / S for s in range(1, S)]
        elif self.growth == "cubic":
            kept = [after + (before - after) * (1.0 - s / S) ** 3 for s in range(1, S)]
        elif self.growth == "late":
            half = (before * after) ** 0.5
            kept = [half * (after / half) ** ((s - 1) / (S - 1)) for s in range(1, S)]
        else:
            kept = [before * (after / before) ** (s / S) for s in range(1, S)]
        return [*(1.0 - k for k in kept), end]

    def to_dict(self) -> dict[str, Any]:
        """Every field, ready for JSON."""
        record = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.given is None:
            del record["given"]
            return record
        return record | {"given": list(self.given)}


def as_schedule(text: str) -> Schedule:
    """A schedule as it is typed: `5`, `5:cubic`, `5:cubic:return`, or `0.5,0.8,0.9` with `:return` perhaps.

    Raises:
        ValueError: in one line, for what is none.
    """
    first, *words = (part.strip() for part in text.split(":"))
    try:
        numbers = [float(part) for part in first.split(",")]
    except ValueError:
        raise ValueError(
            f"stages must be a number, or sparsities such as 0.5,0.8,0.9, got {text!r}"
        ) from None
    options: dict[str, Any] = {}
    for word in words:
        kind = "growth" if word in GROWTHS else "deleted" if word in DELETED else None
        if kind is None or kind in options:
            known = ", ".join((*GROWTHS, *DELETED))
            raise ValueError(
                f"stages {text!r}: after the number comes one growth and what becomes of deleted weights, of "
                f"{known}; not {word!r}"
            )
        options[kind] = word
    if re.fullmatch(r"\d+", first):
        return Schedule(int(first), **options)
    return Schedule(given=numbers, **options)


def _rising(given: Any) -> tuple[float, ...]:
    """Sparsities of stages, checked.

    Raises:
        ValueError: for what are no rising fractions.
    """
    from solvers.control import is_number

    listed = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if not listed or not all(is_number(value) and 0 <= value < 1 for value in listed):
        raise ValueError(f"given must be the sparsities of all stages, numbers in [0, 1), got {given!r}")
    for one, other in itertools.pairwise(listed):
        if other <= one:
            raise ValueError(f"given sparsities must rise, got {other:g} after {one:g}")
    return tuple(float(value) for value in listed)
