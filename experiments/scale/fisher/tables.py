"""The tables of README.md from the study's cells."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from cbs.study.frames import records

Row = Mapping[str, Any]


def selection(frame: pd.DataFrame) -> str:
    """Values and seconds, survivors as they were."""
    names = {
        "magnitude": "magnitude", "randomized-magnitude": "RMP", "swapping": "Algorithm 1 (from RMP)",
        "factor-search": "factor-search",
    }  # fmt: skip

    def shown(row: Row) -> str:
        return f"{row['value']:.3g}" + ("" if row["solver"] == "magnitude" else f" in {row['seconds']:.1f} s")

    return table(frame, "selection", names, ("magnitude", "swapping", "factor-search"), shown, ".1%")


def joint(frame: pd.DataFrame) -> str:
    """Values and seconds, survivors solved for."""
    names = {"magnitude": "magnitude, refitted", "chita": "CHITA", "factor-search": "factor-search"}

    def shown(row: Row) -> str:
        return f"{row['value']:.5g}" + ("" if row["solver"] == "magnitude" else f" in {row['seconds']:.1f} s")

    return table(frame, "joint", names, tuple(names), shown, ".3%")


def table(
    frame: pd.DataFrame,
    variant: str,
    names: Mapping[str, str],
    judged: tuple[str, ...],
    shown: Callable[[Row], str],
    gap: str,
) -> str:
    """A line for every number of gradients and sparsity that `factor-search` was run on."""
    found = {
        (row["gradients"], row["sparsity"], row["solver"]): row
        for row in records(frame)
        if row["variant"] == variant
    }
    accuracies = ", ".join(names[name].partition(",")[0].partition(" (")[0] for name in judged)
    lines = [
        f"| gradients | pruned | {' | '.join(names.values())} | certified gap | accuracy: {accuracies} |",
        "|---" * (len(names) + 4) + "|",
    ]
    for gradients, sparsity in sorted({place[:2] for place in found}):
        rows = {name: found.get((gradients, sparsity, name)) for name in names}
        best = rows["factor-search"]
        if best is None:
            continue
        cells = [shown(row) if row else "-" for row in rows.values()]
        tests = ", ".join(f"{100 * row['accuracy']:.2f}" if (row := rows[name]) else "-" for name in judged)
        lines.append(
            f"| {gradients:,} | {sparsity:.0%} | {' | '.join(cells)} | {best['gap']:{gap}} | {tests} |"
        )
    return "\n".join(lines)
