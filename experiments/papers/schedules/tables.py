"""Accuracies of schedules, and accuracy against bytes."""

from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import t

from cbs.study.frames import read, records
from cbs.study.markdown import markdown

METHODS = ("magnitude", "wanda", "joint")


def schedules(sparsity, frame):
    """Means over seeds with half the range of a 95% interval (t, n - 1 degrees)."""
    groups = {}
    for row in records(frame):
        if row["kind"] == "prune" or row["solver"] == "scratch":
            method = row["parameters"]["method"] if row["kind"] == "prune" else row["method"]
            how = row["solver"].removeprefix(f"{method} ") if row["kind"] == "prune" else "from scratch"
            if row["sparsity"] == sparsity:
                groups.setdefault(how, {}).setdefault(method, []).append(100 * row["accuracy"])
    return markdown(
        ["schedule", *METHODS],
        [[how, *(interval(found.get(m)) for m in METHODS)] for how, found in groups.items()],
    )


def interval(found):
    """Mean and half width; of a single value that."""
    if not found or len(found) < 2:
        return f"{found[0]:.2f}" if found else None
    half = t.ppf(0.975, len(found) - 1) * np.std(found, ddof=1) / len(found) ** 0.5
    return f"{np.mean(found):.2f} ± {half:.2f}"


nine_tenths, most = partial(schedules, 0.9), partial(schedules, 0.98)


def quantized(frame):
    """Cells in fewer bits, more bits first."""
    rows = [row for row in records(frame) if row["solver"] == "bits"]
    return sorted(rows, key=lambda row: (row["sparsity"], -row["bits"]))


def bits(frame):
    """Bytes and accuracy of every network in every number of bits."""
    return markdown(
        ["pruned", "bits", "rounding", "bytes", "accuracy"],
        [
            [
                f"{r['sparsity']:.0%}",
                r["bits"],
                r["rounding"],
                f"{r['bytes']:,}",
                f"{100 * r['accuracy']:.2f}",
            ]
            for r in quantized(frame)
        ],
    )


def plot(frame):
    """Draw accuracy against bytes, a line a sparsity, with error feedback: results/bytes.png."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in quantized(frame) if row["rounding"] != "nearest"]
    for sparsity in dict.fromkeys(row["sparsity"] for row in rows):
        line = [row for row in rows if row["sparsity"] == sparsity]
        at = [row["bytes"] for row in line], [100 * row["accuracy"] for row in line]
        axes.plot(*at, "o-", label=f"{sparsity:.0%} pruned")
        for row, x, y in zip(line, *at, strict=True):
            axes.annotate(str(row["bits"]), (x, y), textcoords="offset points", xytext=(4, -10))
    axes.set(
        xscale="log", xlabel="bytes", ylabel="test accuracy, %", title="Bits a weight, with error feedback"
    )
    axes.legend()
    figure.savefig(Path(__file__).parent / "results" / "bytes.png", dpi=120)


if __name__ == "__main__":
    plot(read(Path(__file__).parent / "results" / "cells.csv"))
