"""The table behind a report: one row a cell, with the columns that every figure needs (tidy data).

A frame comes from a store, a file, or a run folder, perhaps by hand. Here it gets the columns that it lacks,
numbers as numbers, and columns of its own: `label` (solver, and what sets its options apart), `problem`
(what is compared: the digest), `task` (problem, limits and seed: what solvers race on), `outcome`, and `page`
(of the instance: the problem, or the network at a sparsity).
"""

from __future__ import annotations

import difflib
import json
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = (
    "m", "n", "sparsity", "time_limit", "gap_asked", "seed", "attempts", "value", "bound", "gap", "seconds",
    "cpu_seconds", "memory", "nodes", "accuracy", "loss",
)  # fmt: skip
WORDS = (
    "key", "study", "kind", "instance", "digest", "family", "variant", "budget", "solver", "version",
    "machine", "state", "error", "started", "finished", "host", "status",
)  # fmt: skip
OBJECTS = ("options", "parameters", "result")
NEEDED = ("kind", "solver", "state")
"""What a frame can't do without."""
KINDS, STATES = ("solve", "prune", "call"), ("planned", "running", "done", "failed")
LIMITS = ("time_limit", "node_limit", "memory_limit", "patience", "interrupted")
"""Statuses of runs that were stopped: their time is a lower bound (censored data)."""
OUTCOMES = ("proven", "capped", "unproven", "done", "failed", "missing")
"""Proven: to the gap asked. Capped: stopped by a limit. Unproven: ended by itself without a proof, as
heuristics do. Done: of cells that are no solve."""


def prepared(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with all columns, in the types that figures rely on, and with `label`, `task`, `outcome`.

    Args:
        frame: of `cbs.study.read`, of `Store.frame`, or any other with columns of these names.

    Raises:
        ValueError: in one line, where a needed column is missing, or has a word that is none of its own.
    """
    import pandas as pd

    for name in NEEDED:
        if name not in frame:
            near = difflib.get_close_matches(name, map(str, frame.columns), 1)
            hint = f"; did you mean its {near[0]!r}?" if near else ""
            raise ValueError(f"the table has no column {name!r}, which a report needs{hint}")
    made = frame.reset_index(drop=True).copy()
    for name in NUMBERS:
        column = made[name] if name in made else pd.Series(np.nan, made.index)
        made[name] = pd.to_numeric(column, errors="coerce").astype(float)
    for name in WORDS:
        column = made[name] if name in made else pd.Series([""] * len(made), made.index)
        moment = name in ("started", "finished")
        made[name] = [_moment(item) if moment else _word(item) for item in column]
    for name in OBJECTS:
        made[name] = [_mapping(item) for item in made[name]] if name in made else [{} for _ in made.index]
    certified = made["certified"] if "certified" in made else pd.Series([False] * len(made), made.index)
    made["certified"] = [str(item).lower() in ("true", "1", "1.0") for item in certified]
    for name, known in (("kind", KINDS), ("state", STATES)):
        for word in set(made[name]) - set(known):
            raise ValueError(f"column {name!r} has {word!r}; it may have {', '.join(known)}")
    made["gap"] = made["gap"].where(np.isfinite(made["gap"]), _gaps(made["value"], made["bound"]))
    made["key"] = [key or f"row-{row}" for row, key in enumerate(made["key"])]
    made["problem"] = [d or name or key for d, name, key in made[["digest", "instance", "key"]].to_numpy()]
    made["label"] = labels(made)
    made["outcome"] = [_outcome(row) for row in made.to_dict("records")]
    made["task"] = [
        "|".join(map(str, parts))
        for parts in made[["problem", "time_limit", "gap_asked", "seed"]].itertuples(index=False)
    ]
    made["page"] = [
        "" if kind == "call" else f"{problem}@{sparsity:g}" if kind == "prune" else problem
        for kind, problem, sparsity in made[["kind", "problem", "sparsity"]].itertuples(index=False)
    ]
    made["cell"] = made.index
    return made


def labels(frame: pd.DataFrame) -> list[str]:
    """Names of solvers; where one was run with several options, with those that set the runs apart.

    A word `label` in the options or the parameters is taken instead.
    """
    seen: dict[tuple[str, str], dict[str, set[str]]] = {}
    flat = [
        {f"{name}": json.dumps(value, sort_keys=True, default=str) for name, value in options.items()}
        for options in frame["options"]
    ]
    places = list(zip(frame["kind"], frame["solver"], strict=True))
    for place, options in zip(places, flat, strict=True):
        seen.setdefault(place, {})
        for name, value in options.items():
            seen[place].setdefault(name, set()).add(value)
    rows = {place: [o for p, o in zip(places, flat, strict=True) if p == place] for place in seen}
    apart = {
        place: [
            name
            for name, values in names.items()
            if len(values) > 1 or any(name not in options for options in rows[place])
        ]
        for place, names in seen.items()
    }
    found = []
    for place, options, asked in zip(places, flat, frame["options"], strict=True):
        if isinstance(asked.get("label"), str):
            found.append(asked["label"])
            continue
        told = [f"{name}={options[name].strip(chr(34))}" for name in apart[place] if name in options]
        found.append(f"{place[1]} ({', '.join(told)})" if told else place[1])
    return found


def solved(cells: pd.DataFrame) -> pd.DataFrame:
    """The `solve` cells that were run, failed ones too; of several runs of a label on a task the latest."""
    mine = cells[(cells["kind"] == "solve") & cells["state"].isin(["done", "failed"])]
    return (
        mine.sort_values("finished", kind="stable")
        .drop_duplicates(["label", "task"], keep="last")
        .sort_index()
    )


def pruned(cells: pd.DataFrame) -> pd.DataFrame:
    """The `prune` cells that are done."""
    return cells[(cells["kind"] == "prune") & (cells["state"] == "done")]


def bounding(cells: pd.DataFrame) -> list[str]:
    """Labels of solvers that bounded an optimum at least once, in the order of their names.

    A gap of 100% is that of a bound of 0, which says nothing.
    """
    return sorted(set(cells.loc[np.isfinite(cells["bound"]) & (cells["gap"] < 1 - 1e-9), "label"]))


def _gaps(value: pd.Series, bound: pd.Series) -> Any:
    with np.errstate(all="ignore"):
        gap = (value - bound) / value.abs()
    return gap.where(value != bound, 0.0).where(np.isfinite(value) & np.isfinite(bound))


def _outcome(row: Mapping[str, Any]) -> str:
    if row["state"] != "done":
        return "failed" if row["state"] == "failed" else "missing"
    if row["kind"] != "solve":
        return "done"
    if row["status"] == "optimal" or row["gap"] <= row["gap_asked"]:
        return "proven"
    return "capped" if row["status"] in LIMITS else "unproven"


def _word(item: Any) -> str:
    if item is None or (isinstance(item, float) and math.isnan(item)) or str(item) in ("NaT", "<NA>"):
        return ""
    return item.isoformat(sep=" ") if hasattr(item, "isoformat") else str(item)


def _moment(item: Any) -> str:
    """A time, given as text or as seconds since 1970, as text in UTC."""
    if isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(item))
    return _word(item).replace("T", " ")


def _mapping(item: Any) -> dict[str, Any]:
    if isinstance(item, str) and item.strip():
        try:
            item = json.loads(item)
        except ValueError:
            return {"text": item}
    return dict(item) if isinstance(item, Mapping) else {}
