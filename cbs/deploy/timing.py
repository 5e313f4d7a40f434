"""How long calls take: several in turn, again and again, so that what disturbs one disturbs all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Call = Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Times:
    """Of one call.

    Attributes:
        seconds: of a call, once a round.
    """

    seconds: NDArray[np.float64]

    @property
    def median(self) -> float:
        """Of the rounds."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles: between them lies half of the rounds."""
        low, high = np.quantile(self.seconds, [0.25, 0.75])
        return float(low), float(high)


def interleaved(calls: Sequence[Call], *, seconds: float = 0.5, part: float = 2e-4) -> list[Times]:
    """Times of some calls, one after the other in every round.

    A round is short, so that most are not interrupted by whatever else the machine does, and the median is
    one of a call that was not. In all rounds a call is repeated the same number of times.

    Args:
        calls: to be timed; each is run twice before.
        seconds: for all of it, about; there are 3 rounds at least.
        part: seconds of one call's part of a round, or as long as it takes once.
    """
    counts = []
    for call in calls:
        call()
        began = time.perf_counter()
        call()
        counts.append(max(1, int(part / max(time.perf_counter() - began, 1e-7))))
    found: list[list[float]] = [[] for _ in calls]
    began = time.perf_counter()
    while len(found[0]) < 3 or time.perf_counter() - began < seconds:
        for call, count, times in zip(calls, counts, found, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                call()
            times.append((time.perf_counter() - start) / count)
    return [Times(np.array(times)) for times in found]
