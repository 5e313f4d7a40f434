"""The table of README.md from the study's cells."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cbs.study.frames import records

METHODS = ("forward", "backward", "RFE", "OMP", "Lasso", "abess")
DATA = (
    "diabetes", "diabetes, quadratic", "wine, alcohol", "breast cancer, worst area", "breast cancer, classes",
    "wine, classes",
)  # fmt: skip
"""These first, made-up ones after them."""


def subsets(frame: pd.DataFrame) -> str:
    """Ratios to ours, the mean and the worst of the sizes compared; seconds of a path."""
    rows = records(frame)
    lines = [
        f"| data | samples x features | sizes proven | seconds, whole path | {' | '.join(METHODS)} |",
        f"|---|---|---|---|{'---|' * len(METHODS)}",
    ]
    names = dict.fromkeys(row["data"].partition(" #")[0] for row in rows)
    for name in sorted(names, key=lambda name: DATA.index(name) if name in DATA else len(DATA)):
        mine = [row for row in rows if row["data"].partition(" #")[0] == name]
        own = [size for row in mine for size in sizes(row)]
        if not own:
            continue
        best = {(size["data"], size["k"]): size["value"] for size in own}
        paths = [row["seconds"] for row in mine if row["solver"] == "path"]
        seconds = np.mean(paths) if paths else sum(size["seconds"] for size in own)
        cells = []
        for method in METHODS:
            ratios = [
                row["value"] / best[row["data"], row["k"]]
                for row in mine
                if row.get("method") == method
                and np.isfinite(row["value"])
                and (row["data"], row["k"]) in best
            ]
            cells.append(f"{np.mean(ratios):.3f} ({max(ratios):.3f})" if ratios else "-")
        proven = sum(size["proven"] for size in own)
        shape = f"{mine[0]['samples']} x {mine[0]['n']}"
        lines.append(f"| {name} | {shape} | {proven} of {len(own)} | {seconds:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def sizes(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Our sizes of a cell, one of a path or of a classifier; none of another's."""
    if row["solver"] == "path":
        return [{**size, "data": row["data"]} for size in row["sizes"]]
    if row["solver"] == "classifier":
        return [{**row, "proven": row["status"] == "optimal"}]
    return []
