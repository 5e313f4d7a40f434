"""A study's cells with the columns of benchopt's result files, so that `benchopt plot` shows them.

benchopt keeps a row for every point of a solver's curve. Its names of what this project's cells hold, as its
version 1.10 writes them in a run of `benchmark_quadratic_subset`:

| benchopt | cell |
|---|---|
| `objective_name`, `p_obj_gap`, `p_obj_time_limit` | what was asked: gap and time limit |
| `dataset_name`, `p_dataset_*` | instance, its family, sizes, variant, budget, sparsity, and its digest |
| `solver_name`, `p_solver_*` | solver (or method) and its options |
| `idx_rep` | which of the cells that differ in nothing but seed, version or machine |
| `stop_val`, `time` | number of the point in the trace, and its seconds; the last is the answer |
| `objective_value`, `objective_bound`, `objective_gap` | incumbent and bound then, and their relative gap |
| `objective_excess` | `value / optimum - 1`, where a cell of the instance proved its optimum |
| `objective_contradiction` | 1 where the bound lies above the value that another cell of the instance found |
| `objective_accuracy`, `objective_loss` | of prunings, in their last point |
| `platform`, `system-processor`, `run_date`, ... | machine, host, when |

Values and bounds of prunings are compared within their own cell alone: other sparsities, methods and samples
have other objectives. What is not known is NaN. Calls of functions have no counterpart there, and are left
out, as are cells that are not done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

NAMES = {"solve": "Quadratic subset selection", "prune": "Pruned network"}
"""Objectives, by kind of cell; the first is that of `benchmark_quadratic_subset`."""
DATA = ("instance", "family", "m", "n", "variant", "budget", "sparsity", "digest")
"""Columns of cells that say what a data set is."""
ROUNDING = 1e-9
"""Relative excess of a bound over a value that is rounding."""


def to_benchopt(frame: pd.DataFrame, arrays: Callable[[str], Mapping[str, NDArray[Any]]]) -> pd.DataFrame:
    """The table that `benchopt plot` reads, a row for every point of a trace.

    Args:
        frame: of cells, see `cbs.study.read`.
        arrays: gives a cell's arrays by its key, for their traces; as `Store.arrays`.

    Raises:
        ValueError: if no cell is done that solved a problem or pruned a network.
    """
    import pandas as pd

    done = frame[(frame["state"] == "done") & frame["kind"].isin(list(NAMES)) & frame["value"].notna()]
    if done.empty:
        raise ValueError(
            f"none of {len(frame)} cells solved a problem or pruned a network, so that there is nothing for "
            "benchopt; `cbs study show` tells their states"
        )
    lowest, optimal = _known(done)
    repetitions: dict[tuple[str, ...], int] = {}
    rows: list[dict[str, Any]] = []
    for cell in done.to_dict("records"):
        facts = _facts(cell)
        place = (facts["objective_name"], facts["solver_name"], facts["dataset_name"])
        facts["idx_rep"] = repetitions.get(place, 0)
        repetitions[place] = facts["idx_rep"] + 1
        points = _points(cell, arrays(cell["key"]))
        if len(points) > 1:
            facts["sampling_strategy"] = "Iteration"
        problem = _problem(cell)
        for number, (seconds, value, bound) in enumerate(points):
            last = number == len(points) - 1
            rows.append(
                facts
                | {
                    "stop_val": number,
                    "time": seconds,
                    "objective_value": value,
                    "objective_bound": bound,
                    "objective_gap": _gap(value, bound),
                    "objective_feasible": 1.0,
                    "objective_excess": _excess(value, optimal.get(problem)),
                    "objective_contradiction": float(_above(bound, lowest[problem])),
                    "objective_accuracy": _number(cell["accuracy"]) if last else math.nan,
                    "objective_loss": _number(cell["loss"]) if last else math.nan,
                }
            )
    table = pd.DataFrame(rows)
    bare = [name for name in ("objective_accuracy", "objective_loss") if table[name].isna().all()]
    return table.drop(columns=bare)


def _facts(cell: Mapping[str, Any]) -> dict[str, Any]:
    """What all points of a cell have in common."""
    asked = {"gap": _number(cell["gap_asked"]), "time_limit": _number(cell["time_limit"])}
    options = {name: _plain(value) for name, value in sorted(cell["options"].items())}
    data = {name: _plain(cell[name]) for name in DATA}
    shown = {name: data[name] for name in ("budget", "sparsity", "variant") if data[name] is not None}
    solver = str(cell["solver"])
    finished = cell["finished"]
    return {
        "base_seed": int(cell["seed"]) if _number(cell["seed"]) == _number(cell["seed"]) else 0,
        "objective_name": _named(NAMES[cell["kind"]], asked),
        "obj_description": "What a mask costs, and what is proven of all masks.",
        "solver_name": _named(solver, options),
        "solver_description": "",
        "dataset_name": _named(str(cell["instance"]), shown),
        "idx_rep": 0,
        "sampling_strategy": "Run_once",
        "file_objective": "objective.py",
        **{f"p_obj_{name}": value for name, value in asked.items()},
        "file_solver": f"solvers/{solver.replace('-', '_')}.py",
        **{f"p_solver_{name}": value for name, value in options.items()},
        "file_dataset": "datasets/library.py",
        **{f"p_dataset_{name}": value for name, value in data.items()},
        "p_dataset_seed": _number(cell["seed"]),
        "platform": str(cell["host"] or ""),
        "platform-release": "",
        "platform-architecture": "",
        "system-processor": str(cell["machine"] or ""),
        "version-cbs": str(cell["version"] or ""),
        "version-numpy": "",
        "version-scipy": "",
        "run_date": _date(finished),
    }


def _points(cell: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> list[tuple[float, float, float]]:
    """Seconds, value and bound at every point of a trace, and of the answer; what is infinite is NaN."""
    found: list[tuple[float, float, float]] = []
    if "trace_seconds" in arrays:
        columns = [np.asarray(arrays[f"trace_{name}"], dtype=float) for name in ("seconds", "value", "bound")]
        found = [(float(s), float(v), float(b)) for s, v, b in zip(*columns, strict=True) if np.isfinite(v)]
    seconds = _number(cell["seconds"])
    latest = max((point[0] for point in found), default=0.0)
    end = latest if math.isnan(seconds) else max(seconds, latest)
    found.append((end, _number(cell["value"]), _number(cell["bound"])))
    return [(s, v, b if math.isfinite(b) else math.nan) for s, v, b in found]


def _known(done: pd.DataFrame) -> tuple[dict[str, float], dict[str, float]]:
    """The least value of every instance, and the optimum of those where a cell proved it."""
    problems = done.assign(problem=[_problem(cell) for cell in done.to_dict("records")])
    lowest = problems.groupby("problem")["value"].min()
    proven = problems[problems["status"] == "optimal"].groupby("problem")["value"].min()
    return lowest.to_dict(), proven.to_dict()


def _problem(cell: Mapping[str, Any]) -> str:
    """What a cell's value may be compared on: its problem; of a pruning nothing but the cell itself."""
    return str(cell["digest"] if cell["kind"] == "solve" else cell["key"])


def _gap(value: float, bound: float) -> float:
    if math.isnan(bound):
        return math.nan
    return 0.0 if value == bound else (value - bound) / max(abs(value), np.finfo(float).tiny)


def _excess(value: float, optimum: float | None) -> float:
    return math.nan if not optimum else value / optimum - 1.0


def _above(bound: float, value: float) -> bool:
    return bound > value + ROUNDING * max(abs(value), np.finfo(float).tiny)


def _named(name: str, parameters: Mapping[str, Any]) -> str:
    """A name with its parameters, as benchopt writes it."""
    inner = ",".join(f"{key}={parameters[key]}" for key in sorted(parameters))
    return f"{name}[{inner}]" if inner else name


def _number(value: Any) -> float:
    """A number, NaN where there is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _plain(value: Any) -> Any:
    """A parameter as Parquet holds it: a number, a text, or nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool | int | float | str):
        return value
    if type(value).__name__ == "NAType":
        return None
    return value.item() if isinstance(value, np.generic) else str(value)


def _date(finished: Any) -> str:
    """When a cell was done, as ISO 8601 has it."""
    from datetime import UTC, datetime

    moment = _number(finished)
    return "" if math.isnan(moment) else datetime.fromtimestamp(moment, UTC).isoformat()
