"""The table of results/table.md from the study's cells."""

import pandas as pd

from cbs.study.frames import records


def bounds(frame: pd.DataFrame) -> str:
    """A line a bound."""
    lines = [
        "| layer | size | variant | pruned | gap % | mask s | bound s | peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in records(frame):
        pruned = row["budget"] + (", in time" if row.get("limit") else "")
        lines.append(
            f"| {row['network']}/{row['layer']} | {row['m']} x {row['n']} | {row['variant']} | {pruned} "
            f"| {100 * row['gap']:.1f} | {row['mask_seconds']:.1f} | {row['seconds']:.1f} "
            f"| {row['memory']:.0f} |"
        )
    return "\n".join(lines)
