"""Solvers on the same tasks: performance profiles (Dolan and More 2002), shifted geometric means.

A task is a problem with its limits and seed. Compared are solvers on the tasks that all of them have; one
that has fewer than half as many tasks as the widest is left out, so that it does not shrink what is compared.
What is measured is the time to the gap asked: a run that did not reach it counts as if it took infinitely
long in a profile, and as long as its limit in a mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cbs.report.page.cells import bounding, solved

if TYPE_CHECKING:
    import pandas as pd

FLOOR = 1e-3
"""Seconds below which times are noise: shorter ones count as this in ratios."""
WIDTH = 0.5
"""Share of the widest solver's tasks that a solver must have to be compared."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Race:
    """What is compared.

    Attributes:
        cells: the runs, one a label and task; `time` is the seconds to the gap asked (infinite if it was not
            reached), `cap` those that such a run counts in a mean, `ratio` the time over the task's least.
        labels: of the solvers compared.
        tasks: that all of them have.
        left_out: labels left out, each with why.
        tasks_left_out: tasks that not all of them have.
    """

    cells: pd.DataFrame
    labels: Sequence[str]
    tasks: Sequence[str]
    left_out: dict[str, str]
    tasks_left_out: int


def race(cells: pd.DataFrame) -> Race | None:
    """The tasks that the solvers share; None if fewer than two solvers, or no task, can be compared.

    Solvers that never gave a bound are left out: they can't prove a gap.
    """
    runs = solved(cells)
    proving = set(bounding(runs))
    left_out = dict.fromkeys(sorted(set(runs["label"]) - proving), "gives no bound")
    runs = runs[runs["label"].isin(proving)]
    have = {str(label): set(mine["task"]) for label, mine in runs.groupby("label")}
    widest = max(map(len, have.values()), default=0)
    for label, tasks in list(have.items()):
        if len(tasks) < WIDTH * widest:
            left_out[label] = f"ran on {len(tasks)} of {widest} tasks"
            del have[label]
    if len(have) < 2 or not (shared := set.intersection(*have.values())):
        return None
    everything = set.union(*have.values())
    runs = runs[runs["label"].isin(have) & runs["task"].isin(shared)].copy()
    proven = (runs["outcome"] == "proven") & np.isfinite(runs["seconds"])
    runs["time"] = runs["seconds"].where(proven, np.inf)
    runs["cap"] = runs["seconds"].where(proven, caps(runs))
    clipped = runs["time"].clip(lower=FLOOR)
    least = clipped.groupby(runs["task"]).transform("min")
    runs["ratio"] = (clipped / least.where(np.isfinite(least))).fillna(np.inf)
    return Race(runs, sorted(have), sorted(shared), left_out, len(everything) - len(shared))


def caps(runs: pd.DataFrame) -> pd.Series:
    """What a run that proved nothing counts: its limit, or the longest time seen where it had none.

    Never less than the seconds it took.
    """
    longest = runs["seconds"].max()
    limit = runs["time_limit"].where(np.isfinite(runs["time_limit"]), longest)
    taken = runs["seconds"].fillna(0.0)
    return limit.where(limit > taken, taken)


def profile(ratios: Array) -> tuple[Array, Array]:
    """The performance profile: `rho(tau)`, the share of tasks with a ratio of at most tau, as steps.

    Args:
        ratios: `[tasks]` time over the least of the task, infinite where the gap was not reached.

    Returns:
        The steps' `tau`, from 1 on, and the shares from there on. With nothing reached, one step of 0.
    """
    finite = np.sort(ratios[np.isfinite(ratios)])
    steps = np.unique(np.concatenate([[1.0], finite]))
    return steps, np.searchsorted(finite, steps, side="right") / max(len(ratios), 1)


def shifted_mean(times: Array, shift: float) -> float:
    """The shifted geometric mean `exp(mean(log(t + shift))) - shift` (Achterberg 2007, appendix A.3)."""
    return float(np.exp(np.mean(np.log(np.asarray(times, float) + shift))) - shift)


def means(race: Race, shift: float) -> pd.DataFrame:
    """A line a solver, the least mean first: mean, ratio to the best, and how its runs ended."""
    import pandas as pd

    lines = []
    for label in race.labels:
        mine = race.cells[race.cells["label"] == label]
        counts = mine["outcome"].value_counts()
        lines.append(
            {
                "solver": label,
                "tasks": len(mine),
                "proven": int(counts.get("proven", 0)),
                "capped": int(counts.get("capped", 0)),
                "unproven": int(counts.get("unproven", 0)),
                "failed": int(counts.get("failed", 0)),
                "mean_seconds": shifted_mean(mine["cap"].to_numpy(), shift),
                "proven_only": shifted_mean(
                    mine.loc[mine["outcome"] == "proven", "seconds"].to_numpy(), shift
                )
                if counts.get("proven", 0)
                else np.nan,
            }
        )
    table = pd.DataFrame(lines).sort_values("mean_seconds", kind="stable").reset_index(drop=True)
    table["ratio"] = table["mean_seconds"] / table["mean_seconds"].iloc[0]
    return table
