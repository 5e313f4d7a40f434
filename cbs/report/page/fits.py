"""How time grows with size: least squares of log seconds, against log n (power law) and n (exponential).

Runs that were stopped by a limit are censored: their time is only known to be larger. They are not in the
fits, which therefore lean to slow growth where many are; each fit says how many.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cbs.report.page.cells import solved
from cbs.report.page.races import FLOOR

if TYPE_CHECKING:
    import pandas as pd

SIZES, RUNS, LEVEL = 3, 5, 0.95
"""Least different sizes and runs of a fit, and the level of its confidence interval."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """`log t = intercept + slope x`, with `x = log n` (power) or `x = n` (exponential).

    Attributes:
        model: `power` (the slope is the exponent) or `exponential` (the slope is the rate an input).
        slope: of the fit.
        low: end of its confidence interval (Student's t).
        high: the other end.
        intercept: of the fit.
        residual: standard deviation of what is left, in log seconds.
        runs: that it is of.
        least: n of these.
        most: n of these.
    """

    model: str
    slope: float
    low: float
    high: float
    intercept: float
    residual: float
    runs: int
    least: float
    most: float

    def seconds(self, n: Array) -> Array:
        """What it expects at sizes n."""
        return np.asarray(np.exp(self.intercept + self.slope * (np.log(n) if self.model == "power" else n)))

    def size_at(self, seconds: float) -> float:
        """The n at which it expects so many seconds; infinite where it does not grow."""
        if not self.slope > 0 or not math.isfinite(seconds):
            return math.inf
        x = (math.log(seconds) - self.intercept) / self.slope
        return (math.exp(x) if x < 700 else math.inf) if self.model == "power" else x


def fit(n: Array, seconds: Array, model: str) -> Fit | None:
    """Least squares; None with fewer than three sizes or five runs."""
    from scipy.special import stdtrit

    n, seconds = np.asarray(n, float), np.maximum(np.asarray(seconds, float), FLOOR)
    if len(n) < RUNS or len(np.unique(n)) < SIZES:
        return None
    x, y = (np.log(n) if model == "power" else n), np.log(seconds)
    spread = float(np.sum((x - x.mean()) ** 2))
    slope = float(np.sum((x - x.mean()) * (y - y.mean())) / spread)
    intercept = float(y.mean() - slope * x.mean())
    residual = math.sqrt(float(np.sum((y - intercept - slope * x) ** 2)) / (len(n) - 2))
    reach = float(stdtrit(len(n) - 2, 0.5 + LEVEL / 2)) * residual / math.sqrt(spread)
    return Fit(
        model,
        slope,
        slope - reach,
        slope + reach,
        intercept,
        residual,
        len(n),
        float(n.min()),
        float(n.max()),
    )


def growth(cells: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, list[Fit]]]:
    """Fits of every solver that proves, at its largest time limit.

    Returns:
        A line a fit (also: capped runs, the n at which the limit is expected), and fits by label, the
        better one (of less residual) first.
    """
    import pandas as pd

    runs = solved(cells)
    runs = runs[np.isfinite(runs["n"])]
    lines, found = [], dict[str, list[Fit]]()
    for label, mine in runs.groupby("label"):
        limit = mine["time_limit"].max()
        mine = mine[(mine["time_limit"] == limit) | ~np.isfinite(mine["time_limit"])]
        proven = mine[mine["outcome"] == "proven"]
        proven = proven[np.isfinite(proven["seconds"])]
        capped = int((mine["outcome"] == "capped").sum())
        sizes, seconds = proven["n"].to_numpy(), proven["seconds"].to_numpy()
        fits = [f for model in ("power", "exponential") if (f := fit(sizes, seconds, model))]
        fits.sort(key=lambda f: f.residual)
        if fits:
            found[str(label)] = fits
        for rank, one in enumerate(fits):
            lines.append({
                "solver": label, **asdict(one), "better": rank == 0, "capped": capped,
                "limit": limit, "limit_at_n": one.size_at(limit),
            })  # fmt: skip
    return pd.DataFrame(lines), found
