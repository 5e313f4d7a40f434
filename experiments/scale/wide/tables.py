"""The table of results/table.md from the study's cells."""

import pandas as pd

from cbs.study.frames import records

OURS = "portfolio"


def masks(frame: pd.DataFrame) -> str:
    """A line a run; values over ours of the same size, budget and device."""
    rows = records(frame)
    same = ("m", "n", "budget", "device")
    best = {tuple(row[name] for name in same): row["value"] for row in rows if row["solver"] == OURS}
    lines = [
        "| size | pruned | device | solver | error over ours | seconds | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours = best.get(tuple(row[name] for name in same))
        ratio = f"{row['value'] / ours:.4f}" if ours else ""
        lines.append(
            f"| {row['m']} x {row['n']} | {row['budget']} | {row['device']} | {row['solver']} "
            f"| {ratio} | {row['seconds']:.1f} | {row['memory']:.0f} |"
        )
    return "\n".join(lines)
