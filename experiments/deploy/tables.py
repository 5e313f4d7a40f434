"""Tables of README.md from the study's cells: ratios to dense PyTorch, by processor time."""

import pandas as pd

from cbs.study.frames import records


def network(frame: pd.DataFrame) -> str:
    """The perceptron as one call."""
    return table(frame, "network")


def layers(frame: pd.DataFrame) -> str:
    """Its layers by every kernel."""
    return table(frame, "layer")


def resnet20(frame: pd.DataFrame) -> str:
    """ResNet20 with fewer channels, or weights."""
    return table(frame, "ResNet20")


def table(frame: pd.DataFrame, part: str) -> str:
    """A line a network or layer, and batch."""
    found: dict[tuple[str, int], dict[str, dict]] = {}
    for row in records(frame):
        for call in row["calls"]:
            if call["part"] == part:
                found.setdefault((call["what"], row["batch"]), {})[call["how"]] = call
    every = dict.fromkeys(how for calls in found.values() for how in calls if how != "torch")
    lines = [
        f"| | batch | multiplications | torch, us | {' | '.join(every)} |",
        "|---" * (4 + len(every)) + "|",
    ]
    for (what, batch), calls in found.items():
        count = calls["torch"]["multiplications"] / max(1, calls["compiled"]["multiplications"])
        cells = [f"{calls[how]['times_dense_cpu']:.2f}" if how in calls else "" for how in every]
        lines.append(
            f"| {what} | {batch} | 1 / {count:.2f} | {calls['torch']['cpu']:.2f} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)
