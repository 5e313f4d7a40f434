"""Tables of results/table.md from the study's cells."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cbs.study.frames import records

LEAST = 0.1
"""Seconds that ours may take at least, as in cells.py."""


def summary(frame: pd.DataFrame) -> str:
    """A line a solver: its values over ours, mean (geometric) and least; our time over the allowed."""
    rows = records(frame)
    networks = list(dict.fromkeys(row["network"] for row in rows))
    heads = " | ".join(f"{network} | least | our time" for network in networks)
    lines = [f"| solver | {heads} |", "|---|" + "---|" * 3 * len(networks)]
    for name in dict.fromkeys(row["solver"] for row in rows):
        cells = []
        for network in networks:
            mine = [row for row in rows if row["solver"] == name and row["network"] == network]
            if not mine:
                cells += ["", "", ""]
                continue
            ratios = [row["value"] / row["our_value"] for row in mine]
            times = [row["our_seconds"] / max(row["seconds"], LEAST) for row in mine]
            mean = float(np.exp(np.mean(np.log(ratios))))
            cells += [f"{mean:.3f}", f"{min(ratios):.3f}", f"{np.mean(times):.2f} to {max(times):.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cases(frame: pd.DataFrame) -> str:
    """A line for every layer and budget: a solver's value over ours in its time, its seconds, ours."""
    rows = records(frame)
    names = list(dict.fromkeys(row["solver"] for row in rows))
    found = {
        (row["network"], row["layer"], row["m"], row["n"], row["budget"], row["solver"]): row for row in rows
    }
    lines = [f"| layer | size | pruned | {' | '.join(names)} |", "|---|---|---|" + "---|" * len(names)]
    for *place, m, n, budget in dict.fromkeys(key[:-1] for key in found):
        cells = [_cell(found.get((*place, m, n, budget, name))) for name in names]
        lines.append(f"| {'/'.join(place)} | {m} x {n} | {budget} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{row['value'] / row['our_value']:.3f} ({row['seconds']:.2f}, {row['our_seconds']:.2f} s)"
