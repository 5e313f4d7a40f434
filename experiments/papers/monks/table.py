"""The summary of the rows: the fewest weights at unchanged accuracy."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SLACK = 0.05
"""Accuracies in percent are published to one digit."""


def summarize(rows: Sequence[dict[str, str]], config: dict[str, Any], folder: Path) -> None:
    """Write `table.md`: for every problem and method the fewest weights left, median, least and most."""
    curves: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        curves[tuple(row[key] for key in ("problem", "damping", "variant", "decay", "seed"))].append(row)
    groups: dict[tuple[str, ...], list[list[dict[str, str]]]] = defaultdict(list)
    for place, curve in curves.items():
        groups[place[:3]].append(curve)
    lines: list[str] = []
    for problem, (train, test, published) in config["published"].items():
        lines += [
            f"## MONK's {problem}: {train:g} / {test:g} train / test; OBS in the paper: {published} weights",
            "",
            "| method | damping | networks | fewest weights: median (least to most) | without a break "
            "| exact: proven | CPU s a network |",
            "|---|---|---|---|---|---|---|",
        ]
        for (which, damping, variant), members in groups.items():
            if which == problem:
                lines.append(line(variant, damping, members, train - SLACK, test - SLACK))
        lines.append("")
    text = "\n".join(lines)
    (folder / "table.md").write_text(text)
    print(text)


def line(
    variant: str, damping: str, members: Sequence[Sequence[dict[str, str]]], train: float, test: float
) -> str:
    """A method's row of a problem's table."""
    fewest, unbroken, proven, searched, seconds = [], [], 0, 0, []
    for curve in members:
        curve = sorted(curve, key=lambda row: -int(row["kept"]))
        good = [float(row["train"]) >= train and float(row["test"]) >= test for row in curve]
        kept = [int(row["kept"]) for row in curve]
        fewest.append(min((k for k, fine in zip(kept, good, strict=True) if fine), default=np.inf))
        first = good.index(False) if False in good else len(good)
        unbroken.append(kept[first - 1] if first else np.inf)
        seconds.append(sum(float(row["seconds"]) for row in curve))
        if variant.startswith("exact"):
            searched += len(curve)
            # a proof of the curvature's own problem is no proof of the layer objective: `feasible`
            proven += sum(row["status"] in ("optimal", "feasible") for row in curve)
    share = f"{proven} of {searched}" if searched else "-"
    return (
        f"| {variant} | {damping} | {len(members)} | {spread(fewest)} | {spread(unbroken)} | {share} | "
        f"{np.mean(seconds):.1f} |"
    )


def spread(values: Sequence[float]) -> str:
    """Median, least and most; infinite where no number that was run is good."""
    words = f"{np.median(values):g} ({min(values):g} to {max(values):g})"
    return words.replace("inf", "none")
