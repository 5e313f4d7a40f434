"""Reports of results/reports.md from the study's cells."""

import pandas as pd

from cbs.study.frames import records


def reports(frame: pd.DataFrame) -> str:
    """What every diagnosis says, as its command prints it."""
    lines = []
    for row in records(frame):
        for kind, text in row.get("texts", {}).items():
            lines += [f"**{kind}, {row['method']}**", "", "```text", text, "```", ""]
    return "\n".join(lines)
