"""Incumbent and bound over time (anytime performance): gaps at given times, and the primal integral."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

POINTS = 60
"""Of a trace, in a page."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Trace:
    """A search's history: at `seconds` `[k]`, rising, the incumbent's `value` and the `bound`; steps between.

    Before the first incumbent the value is infinite, before the first bound the bound minus infinity.
    """

    seconds: Array
    value: Array
    bound: Array

    @classmethod
    def of(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        value: float = np.nan,
        bound: float = np.nan,
        end: float = np.nan,
    ) -> Trace:
        """From `trace_seconds`, `trace_value`, `trace_bound`, and what the run ended with.

        Raises:
            ValueError: if they differ in length.
        """
        seconds = np.asarray(arrays["trace_seconds"], float).ravel()
        values = np.asarray(arrays.get("trace_value", np.full(len(seconds), np.inf)), float).ravel()
        bounds = np.asarray(arrays.get("trace_bound", np.full(len(seconds), -np.inf)), float).ravel()
        if not len(seconds) == len(values) == len(bounds):
            raise ValueError(f"trace of {len(seconds)} times, {len(values)} values, {len(bounds)} bounds")
        order = np.argsort(seconds, kind="stable")
        seconds, values, bounds = seconds[order], values[order], bounds[order]
        if np.isfinite(end):
            seconds = np.append(np.minimum(seconds, end), end)
            values = np.append(values, value if np.isfinite(value) else np.inf)
            bounds = np.append(bounds, bound if np.isfinite(bound) else -np.inf)
        values = np.minimum.accumulate(np.where(np.isnan(values), np.inf, values))
        bounds = np.maximum.accumulate(np.where(np.isnan(bounds), -np.inf, bounds))
        return cls(seconds, values, bounds)

    @property
    def gaps(self) -> Array:
        """`(value - bound) / |value|` in [0, 1] at every time; 1 where either is unknown."""
        return gap_of(self.value, self.bound)

    def at(self, times: Array, values: Array, before: float = 1.0) -> Array:
        """A step function of this trace, `values` from `seconds` on, at times `[t]`."""
        if not len(self.seconds):
            return np.full(len(times), before)
        place = np.searchsorted(self.seconds, times, side="right") - 1
        return np.where(place >= 0, values[np.maximum(place, 0)], before)

    def excess(self, best: float) -> Array:
        """The primal gap `(value - best) / |value|` in [0, 1] at every time, 1 without an incumbent."""
        return gap_of(self.value, np.full(len(self.value), best))

    def integral(self, best: float, until: float) -> float:
        """The primal integral over `[0, until]`, divided by `until` (Berthold 2013): 0 best, 1 worst."""
        if until <= 0:
            return float("nan")
        times = np.concatenate([[0.0], self.seconds[self.seconds < until], [until]])
        heights = self.at(times[:-1], self.excess(best))
        return float(np.sum(np.diff(times) * heights) / until)

    def short(self, points: int = POINTS) -> Trace:
        """The same with at most so many points: first, last, and those nearest to equal steps between.

        The steps are equal in the logarithm of time, in which traces are looked at.
        """
        k = len(self.seconds)
        if k <= points:
            return self
        scale = np.log1p(self.seconds / max(self.seconds[-1] * 1e-4, 1e-9))
        wanted = np.searchsorted(scale, np.linspace(scale[0], scale[-1], points - 2))
        keep = np.unique(np.concatenate([[0], np.clip(wanted, 0, k - 1), [k - 1]]))
        return Trace(self.seconds[keep], self.value[keep], self.bound[keep])


def gap_of(value: Array, bound: Array) -> Array:
    """`(value - bound) / |value|` in [0, 1]; 0 where they are equal, 1 where either is not finite."""
    with np.errstate(all="ignore"):
        gap = np.where(value == bound, 0.0, (value - bound) / np.abs(value))
    known = np.isfinite(value) & np.isfinite(bound) & ~np.isnan(gap)
    return np.where(known, np.clip(np.where(known, gap, 1.0), 0.0, 1.0), 1.0)


def quartiles(heights: Iterable[Array]) -> tuple[Array, Array, Array]:
    """Lower quartile, median and upper quartile over runs, at every time."""
    low, mid, high = np.quantile(np.stack(list(heights)), [0.25, 0.5, 0.75], axis=0)
    return low, mid, high


def times(traces: Iterable[Trace], count: int = 80) -> Array:
    """Times from the first event of any trace to the last, equal steps in the logarithm."""
    found = [trace.seconds for trace in traces if len(trace.seconds)]
    first = max(min((float(s[s > 0].min()) for s in found if (s > 0).any()), default=1e-3), 1e-3)
    last = max((float(s[-1]) for s in found), default=1.0)
    return np.geomspace(min(first, last / 2 or first), max(last, 2 * first), count)
