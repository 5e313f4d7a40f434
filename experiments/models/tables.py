"""Tables of README.md from the study's cells."""

from typing import Any

import pandas as pd

from cbs.study.frames import records

SHOWN = {
    "silero-vad": ("agreement", "accuracy"),
    "english_g2": ("accuracy", "alike"),
    "MiniLM-L6": ("cosine", "ranks"),
    "ResNet20": ("accuracy", "agreement"),
}
"""The figures that the table has of every network."""


def models(frame: pd.DataFrame) -> str:
    """A line a pruning: what was asked, what is kept, and what it costs."""
    head = (
        "| network | pruned | by | zeros in the layers / network | quality | dense | bytes on disk | "
        "ms dense / pruned / sparse | seconds | gap |"
    )
    lines = [head, "|" + " --- |" * 3 + " ---: |" * 7]
    rows = [row for row in records(frame) if row["solver"] == "pruned"]
    for row in sorted(rows, key=lambda row: list(SHOWN).index(row["network"])):
        quality = ", ".join(f"{figure} {row[figure]:.3f}" for figure in SHOWN[row["network"]])
        dense = row.get("dense_accuracy")
        kinds = [row.get(f"{one}_cpu_ms") for one in ("dense", "pruned", "sparse")]
        times = "" if None in kinds else " / ".join(f"{one:.2f}" for one in kinds)
        gap = "" if pd.isna(row["gap"]) else f"{100 * row['gap']:.1f}%"
        disk = f"{row['dense_bytes'] / 1e6:.2f} to {row.get('bytes', 0) / 1e6:.2f} MB"
        zero = f"{100 * row['achieved_sparsity']:.1f}% / {100 * row['whole']:.1f}%"
        lines.append(
            f"| {row['network']} | {row['what']} | {row['by']} | {zero} | {quality} "
            f"| {'' if dense is None else f'{dense:.3f}'} | {disk} | {times} | {row['seconds']:.0f} | {gap} |"
        )
    return "\n".join(lines)


def matrix(frame: pd.DataFrame) -> str:
    """What works on which network, and below it the lines of what was refused or left out, each once."""
    rows = [row for row in records(frame) if row["solver"] == "tried"]
    columns = dict.fromkeys(row["column"] for row in rows)
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row["network"], {})[row["column"]] = row
    notes: dict[str, str] = {}

    def note(text: str) -> str:
        return notes.setdefault(text, str(len(notes) + 1))

    lines = ["| network | layers | left out | " + " | ".join(columns) + " |"]
    lines.append("|" + " --- |" * (len(columns) + 3))
    for name, row in found.items():
        cells = []
        for column in columns:
            one = row.get(column)
            text = "" if one is None else one["outcome"]
            cells.append(text if not one or not one["told"] else f"{text} [{note(one['told'])}]")
        some = next((one for one in row.values() if one["outcome"] == "works"), None)
        reasons: dict[str, int] = {}
        for why in (some or {"left_out": {}})["left_out"].values():
            reasons[why] = reasons.get(why, 0) + 1
        known = sorted(reasons, key=lambda why: int(notes.get(why, len(notes) + 1)))
        left = ", ".join(f"{reasons[why]} [{note(why)}]" for why in known)
        lines.append(f"| {name} | {some['layers'] if some else ''} | {left} | " + " | ".join(cells) + " |")
    told = [f"{number}. {text}" for text, number in notes.items()]
    return "\n".join([*lines, "", *told])
