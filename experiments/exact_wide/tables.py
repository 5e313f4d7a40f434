"""The table of README.md from the study's cells."""

import numpy as np
import pandas as pd

from cbs.study.frames import records


def splits(frame: pd.DataFrame) -> str:
    """Mean gap and seconds of every split and sparsity, quickest first, to the best mask known."""
    best: dict[tuple[float, int], float] = {}
    rows = records(frame)
    for row in rows:
        key = (row["sparsity"], row["row"])
        best[key] = min(best.get(key, np.inf), row["value"])
    cells: dict[tuple[float, str], list[tuple[float, float]]] = {}
    for row in rows:
        gap = 1.0 - row["bound"] / best[row["sparsity"], row["row"]]
        cells.setdefault((row["sparsity"], row["split"]), []).append((gap, row["seconds"]))
    lines = [
        "| pruned | split | rows | mean gap % | largest gap % | seconds a row |",
        "|---|---|---|---|---|---|",
    ]
    for (pruned, split), found in sorted(cells.items(), key=lambda cell: (cell[0][0], cell[1][0][1])):
        gaps, seconds = np.array(found).T
        lines.append(
            f"| {pruned:.0%} | {split} | {len(found)} | {100 * gaps.mean():.2f} | {100 * gaps.max():.2f} "
            f"| {seconds.mean():.1f} |"
        )
    return "\n".join(lines)
