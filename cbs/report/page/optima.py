"""Values against proven optima (relative excess), and bounds against values (consistency of solvers)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cbs.report.page.cells import solved

if TYPE_CHECKING:
    import pandas as pd

EXACT = 1e-4
"""Excess that counts as none, where the proof was not to a wider gap."""
ROUNDING = 1e-6
"""By which a bound may lie above another's value, relative to it: tolerances of floating point solvers."""
TINY = 1e-12
"""The same, absolute."""


def best_known(cells: pd.DataFrame) -> dict[str, float]:
    """The least value of every problem."""
    runs = solved(cells)
    runs = runs[np.isfinite(runs["value"])]
    return {str(problem): float(value) for problem, value in runs.groupby("problem")["value"].min().items()}


def excess(cells: pd.DataFrame) -> pd.DataFrame:
    """Runs of solvers that prove less than half of these problems, on those whose optimum another proved.

    Columns: those of the cells, `optimum`, `excess` = `(value - optimum) / |optimum|`, and `exact`, whether
    that is within the gap to which the optimum is proven.
    """
    runs = solved(cells)
    runs = runs[np.isfinite(runs["value"])]
    proofs = runs[runs["outcome"] == "proven"]
    proven = set(proofs["problem"])
    least = runs.groupby("problem")["value"].min()
    width = proofs.groupby("problem")["gap_asked"].min().fillna(EXACT)
    runs = runs[runs["problem"].isin(proven)].copy()
    share = (runs["outcome"] == "proven").groupby(runs["label"]).mean()
    runs = runs[runs["label"].isin(share.index[share < 0.5])].copy()
    runs["optimum"] = runs["problem"].map(least).astype(float)
    over = runs["value"] - runs["optimum"]
    size = runs["optimum"].abs()
    runs["excess"] = (over / size).where(size > 0, np.where(over > 0, np.inf, 0.0)).clip(lower=0.0)
    runs["exact"] = runs["excess"] <= np.maximum(runs["problem"].map(width).astype(float), EXACT)
    return runs


def excess_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A line a solver: how often it found an optimum, and how far it was from it."""
    import pandas as pd

    lines = [
        {
            "solver": label, "runs": len(mine), "optimal": int(mine["exact"].sum()),
            "share_optimal": mine["exact"].mean(), "mean_excess": mine["excess"].mean(),
            "median_excess": mine["excess"].median(), "worst_excess": mine["excess"].max(),
            "mean_seconds": mine["seconds"].mean(),
        }
        for label, mine in runs.groupby("label")
    ]  # fmt: skip
    table = pd.DataFrame(lines)
    return table if table.empty else table.sort_values(["mean_excess", "solver"]).reset_index(drop=True)


@dataclass(frozen=True)
class Consistency:
    """Whether bounds of some solvers and values of others can all be true.

    Attributes:
        pairs: of a bound and another run's value of the same problem that were compared.
        problems: with such pairs.
        contradictions: a line a pair with the bound above the value, the worst first.
        by_solver: a line a solver: pairs in which its bound stood, and contradictions among these.
    """

    pairs: int
    problems: int
    contradictions: pd.DataFrame
    by_solver: pd.DataFrame


def consistency(cells: pd.DataFrame) -> Consistency:
    """Every bound against every other run's value of the same problem.

    A bound of 0 under values of which none is less says nothing, and is not counted.
    """
    import pandas as pd

    runs = cells[(cells["kind"] == "solve") & (cells["state"] == "done")]
    pairs = problems = 0
    wrong: list[dict[str, object]] = []
    counted: dict[str, list[int]] = {}
    fields = ["label", "bound", "value", "cell"]
    for problem, mine in runs.groupby("problem", sort=False):
        names, bounds, values, rows = (mine[field].to_numpy() for field in fields)
        valued = np.isfinite(values)
        if not valued.any():
            continue
        telling = (bounds != 0) | (bounds > values[valued].min())
        bounded = np.isfinite(bounds) & telling
        compared = np.outer(bounded, valued) & ~np.eye(len(mine), dtype=bool)
        if not compared.any():
            continue
        problems += 1
        pairs += int(compared.sum())
        above = compared & _above(bounds, values)
        for i in np.flatnonzero(bounded):
            tally = counted.setdefault(names[i], [0, 0])
            tally[0] += int(compared[i].sum())
            tally[1] += int(above[i].sum())
        for i, j in np.argwhere(above):
            wrong.append({
                "cell": int(rows[i]), "instance": mine["instance"].iloc[0], "problem": problem,
                "solver": names[i], "bound": bounds[i], "other": names[j], "value": values[j],
                "relative": (bounds[i] - values[j]) / max(abs(values[j]), TINY),
            })  # fmt: skip
    columns = ["cell", "instance", "problem", "solver", "bound", "other", "value", "relative"]
    table = pd.DataFrame(wrong, columns=columns).sort_values("relative", ascending=False)
    lines = [{"solver": name, "pairs": c[0], "contradictions": c[1]} for name, c in sorted(counted.items())]
    by_solver = pd.DataFrame(lines, columns=["solver", "pairs", "contradictions"])
    return Consistency(pairs, problems, table.reset_index(drop=True), by_solver)


def _above(bounds: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        room = ROUNDING * np.abs(values)[None, :] + TINY
        return np.asarray(bounds[:, None] > values[None, :] + room)
