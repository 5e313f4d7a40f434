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


def interleaved(calls: Sequence[Call], *, rounds: int = 15, seconds: float = 0.5) -> list[Times]:
    """Times of some calls, one after the other in every round.

    In a round a call is repeated as often as makes it measurable, and the same number of times in all rounds.

    Args:
        calls: to be timed; each is run once before.
        rounds: at most, and 3 at least.
        seconds: for all of it, about.
    """
    share = seconds / max(1, rounds * len(calls))
    counts = []
    for call in calls:
        call()
        began = time.perf_counter()
        call()
        counts.append(max(1, int(share / max(time.perf_counter() - began, 1e-7))))
    found: list[list[float]] = [[] for _ in calls]
    began = time.perf_counter()
    for done in range(rounds):
        if done >= 3 and time.perf_counter() - began > seconds:
            break
        for call, count, times in zip(calls, counts, found, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                call()
            times.append((time.perf_counter() - start) / count)
    return [Times(np.array(times)) for times in found]
