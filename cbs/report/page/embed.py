"""Data inside a page: JSON, compressed, in characters that no markup is made of (base64 of gzip).

No name can break out of it, and a table of ten thousand cells stays small. A column of a figure's table that
the table of cells has as well is not written twice: the page looks it up by the column `cell`.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cbs.report.page.details import Details

if TYPE_CHECKING:
    import pandas as pd

CELLS = (
    "cell",
    "key",
    "kind",
    "state",
    "outcome",
    "problem",
    "page",
    "instance",
    "family",
    "label",
    "solver",
    "m",
    "n",
    "variant",
    "budget",
    "sparsity",
    "time_limit",
    "gap_asked",
    "seed",
    "status",
    "value",
    "bound",
    "gap",
    "seconds",
    "cpu_seconds",
    "memory",
    "nodes",
    "accuracy",
    "loss",
    "certified",
    "version",
    "machine",
    "host",
    "error",
    "task",
    "parameters",
    "result",
)
"""Columns that the page has of every cell."""
OBJECTS = ("parameters", "result")
"""Of these, those that hold mappings."""
TEXT = 400
"""Characters of a result that the page has."""


def packed(data: Any) -> str:
    """Data as text of a page."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def plain(item: Any) -> Any:
    """A value for JSON; what is not finite is None, an infinity in words where it stands for itself."""
    if isinstance(item, np.generic):
        item = item.item()
    if isinstance(item, float) and not math.isfinite(item):
        return None
    if isinstance(item, Mapping):
        return {str(key): plain(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [plain(value) for value in item]
    return item


def column(series: pd.Series) -> list[Any]:
    """The values of a column for JSON."""
    values = series.to_numpy()
    if values.dtype.kind == "f":
        found = values.astype(object)
        found[~np.isfinite(values)] = None
        return list(found.tolist())
    if values.dtype.kind in "iub":
        return list(values.tolist())
    return [item if type(item) is str else plain(item) for item in values.tolist()]


def cells_table(cells: pd.DataFrame) -> dict[str, Any]:
    """The columns of all cells; mappings as short JSON, or left out where all are empty."""
    made = {}
    for name in CELLS:
        if name not in OBJECTS:
            made[name] = column(cells[name])
        elif any(map(len, cells[name])):
            made[name] = [_short(item) for item in cells[name]]
    return made


def _short(item: Mapping[str, Any]) -> str:
    scalars = {key: value for key, value in item.items() if not isinstance(value, Mapping | list | tuple)}
    text = json.dumps(plain(scalars), default=str) if scalars else ""
    return text if len(text) <= TEXT else f"{text[: TEXT - 4]} ..."


def table(frame: pd.DataFrame, cells: pd.DataFrame) -> dict[str, Any]:
    """A figure's table: `columns` in their order, and `data` of those that the cells don't have."""
    rows = frame["cell"].to_numpy() if "cell" in frame else None
    data = {}
    for name in frame.columns:
        known = rows is not None and name in CELLS and name not in ("cell", *OBJECTS)
        if not known or not _same(frame[name].to_numpy(), cells[name].to_numpy()[rows]):
            data[str(name)] = column(frame[name])
    return {"columns": [str(name) for name in frame.columns], "data": data, "rows": len(frame)}


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    numbers = one.dtype.kind == "f" and other.dtype.kind == "f"
    return bool(np.array_equal(one, other, equal_nan=numbers))


def details_table(details: Details) -> dict[str, Any]:
    """Traces by cell, and masks by page as packed bits."""
    traces = {}
    for row, whole in details.traces.items():
        trace = whole.short()
        traces[str(row)] = [_rounded(trace.seconds), _rounded(trace.value), _rounded(trace.bound)]
    masks: dict[str, Any] = {}
    for page, (row, layers) in details.masks.items():
        masks[page] = {
            "cell": row,
            "layers": [
                {
                    "name": name,
                    "shape": list(mask.shape),
                    "bits": base64.b64encode(np.packbits(mask).tobytes()).decode(),
                }
                for name, mask in layers.items()
            ],
        }
    return {"traces": traces, "masks": masks}


def _rounded(values: Iterable[float], digits: int = 7) -> list[float | None]:
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in map(float, values)]
