"""Measurements that are calls of functions: parameters and results, flattened to tables (tidy data)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

MEASURED = ("status", "value", "bound", "gap", "accuracy", "loss", "seconds", "nodes", "memory")
"""Columns of cells that a function may fill."""
QUALITY, TIME = ("accuracy", "gap", "value", "loss"), "seconds"
"""Of what figures are drawn: the first of these that varies, and seconds."""
CELL, RENAMED = "cell", "cell_"
"""The column that says which cell a row is of, and the name that a function's own `cell` has beside it."""
GROUPS = 10
"""Lines of a figure at most."""


def functions(cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Of every function the table of its calls that are done: `cell`, parameters, what it measured.

    A parameter's column is named after it; a scalar result's too, unless a parameter has that name.
    """
    import pandas as pd

    found: dict[str, list[dict[str, Any]]] = {}
    for cell in cells[(cells["kind"] == "call") & (cells["state"] == "done")].to_dict("records"):
        row = {"cell": cell["cell"], **parameters(cell)}
        row |= {name: cell[name] for name in MEASURED if name not in row and _told(cell[name])}
        row |= {name: value for name, value in _scalars(cell["result"]).items() if name not in row}
        found.setdefault(cell["label"], []).append(row)
    return {label: pd.DataFrame(rows) for label, rows in found.items()}


def lists(cells: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Of every list of mappings in functions' results, by function and name, a table with a row an entry."""
    import pandas as pd

    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells[(cells["kind"] == "call") & (cells["state"] == "done")].to_dict("records"):
        for name, entries in cell["result"].items():
            if not isinstance(entries, Sequence) or isinstance(entries, str):
                continue
            rows = [_scalars(entry) for entry in entries if isinstance(entry, Mapping)]
            head = {"cell": cell["cell"], **parameters(cell)}
            found.setdefault((cell["label"], name), []).extend({**head, **row} for row in rows if row)
    return {place: pd.DataFrame(rows) for place, rows in found.items() if rows}


def parameters(cell: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a function was called with; percentages as shares."""
    given = cell["parameters"]
    inner = given.get("parameters")
    return {
        name: _share(value)
        for name, value in _scalars(inner if isinstance(inner, Mapping) else given).items()
    }


def axes(table: pd.DataFrame, names: Sequence[str]) -> tuple[str | None, str | None]:
    """Of parameters, the one along the axis, and the one that has a line a value; None where there is none.

    Along the axis goes the number of the most values, else the word of the most; a line each has the one of
    the most values among the others, if these are not too many.
    """
    import pandas as pd

    varied = {name: table[name].nunique() for name in names if name in table and table[name].nunique() > 1}
    numbers = [name for name in varied if pd.api.types.is_numeric_dtype(table[name])]
    along = max(numbers or varied, key=lambda name: varied[name], default=None)
    rest = [name for name in varied if name != along and varied[name] <= GROUPS]
    return along, max(rest, key=lambda name: varied[name], default=None)


def _scalars(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        RENAMED if name == CELL else str(name): value
        for name, value in item.items()
        if value is None or isinstance(value, str | bool | int | float)
    }


def _told(value: Any) -> bool:
    return value != "" and not (isinstance(value, float) and math.isnan(value))


def _share(value: Any) -> Any:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value) if isinstance(value, str) else None
    return float(match[1]) / 100 if match else value
