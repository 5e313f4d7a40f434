"""The summary of the rows: what the optimum gains, and whether a better objective is a better network."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import scipy.stats

mpl.use("Agg")
from matplotlib import pyplot as plt

Row = dict[str, Any]


def interval(values: Sequence[float], confidence: float) -> str:
    """Mean and Student's half width of its confidence interval over independent seeds."""
    found = np.asarray(values, dtype=float)
    mean = float(found.mean())
    if len(found) < 2:
        return f"{mean:.3g}"
    half = float(
        scipy.stats.t.ppf(0.5 + confidence / 2, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5
    )
    return f"{mean:.3g} +- {half:.2g}"


def summarize(rows: Sequence[Row], confidence: float, folder: Path) -> None:
    """Write `table.md` and `plot.png`."""
    seeds = sorted({row["seed"] for row in rows})
    sparsities = sorted({row["sparsity"] for row in rows})
    methods = list(dict.fromkeys(row["method"] for row in rows))
    at = {(row["seed"], row["sparsity"], row["method"]): row for row in rows}
    seeds = [s for s in seeds if all((s, q, m) in at for q in sparsities for m in methods)]
    if not seeds:
        return
    lines = [
        f"Seeds: {', '.join(map(str, seeds))}. Means over them +- half the {confidence:.0%} confidence "
        "interval (Student's t).",
        "",
        "## Every method",
        "",
        "| pruned | method | objective / optimum | loss | test accuracy | tuned loss | tuned test accuracy "
        "| CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for q in sparsities:
        for m in methods:
            own = [at[s, q, m] for s in seeds]
            ratio = [row["value"] / at[s, q, "optimum"]["value"] for s, row in zip(seeds, own, strict=True)]
            cells = [interval([row[key] for row in own], confidence) for key in COLUMNS]
            seconds = np.mean([row["seconds"] for row in own])
            lines.append(
                f"| {q:.0%} | {m} | {interval(ratio, confidence)} | {' | '.join(cells)} | {seconds:.1f} |"
            )
    lines += [
        "",
        *gains(seeds, sparsities, methods, at, confidence),
        "",
        *ranks(seeds, sparsities, methods, at, confidence),
    ]
    text = "\n".join(lines) + "\n"
    (folder / "table.md").write_text(text)
    print(text)
    plot(seeds, sparsities, methods, at, folder / "plot.png")


COLUMNS = "loss", "test_accuracy", "tuned_loss", "tuned_test_accuracy"
SAME = "local-search", "obc", "alps", "sparsegpt", "wanda", "magnitude"
"""Heuristics for the optimum's own objective."""


def gains(
    seeds: Sequence[int],
    sparsities: Sequence[float],
    methods: Sequence[str],
    at: dict[Any, Row],
    confidence: float,
) -> list[str]:
    """The optimum minus each heuristic, and minus each seed's best, paired by seeds."""
    lines = [
        "## The optimum minus a heuristic, network by network",
        "",
        "`best` is each network's heuristic of least objective.",
        "",
        "| pruned | heuristic | objective, relative | loss | test accuracy, points | tuned loss "
        "| tuned test accuracy, points |",
        "|---|---|---|---|---|---|---|",
    ]
    for q in sparsities:
        best = {s: min((at[s, q, m] for m in SAME), key=lambda row: row["value"]) for s in seeds}
        optimum = {s: at[s, q, "optimum"] for s in seeds}
        for name in ("best", *SAME):
            rival = best if name == "best" else {s: at[s, q, name] for s in seeds}
            relative = [optimum[s]["value"] / rival[s]["value"] - 1 for s in seeds]
            cells = [
                interval([optimum[s][key] - rival[s][key] for s in seeds], confidence) for key in COLUMNS
            ]
            lines.append(f"| {q:.0%} | {name} | {interval(relative, confidence)} | {' | '.join(cells)} |")
    return lines


def ranks(
    seeds: Sequence[int],
    sparsities: Sequence[float],
    methods: Sequence[str],
    at: dict[Any, Row],
    confidence: float,
) -> list[str]:
    """Spearman's rank correlation of the objective with what is measured, over methods in a network."""
    lines = [
        "## Rank correlation of the objective with the measured, over methods within a network",
        "",
        "Random is left out, which would make any correlation large; `close` are the optimum, local search, "
        "obc, alps and sparsegpt only.",
        "",
        "| pruned | methods | loss | test accuracy | tuned loss | tuned test accuracy |",
        "|---|---|---|---|---|---|",
    ]
    close = ["optimum", *SAME[:4]]
    for q in sparsities:
        for name, some in (("all", [m for m in methods if m != "random"]), ("close", close)):
            cells = []
            for key in COLUMNS:
                found = [
                    scipy.stats.spearmanr(
                        [at[s, q, m]["value"] for m in some], [at[s, q, m][key] for m in some]
                    )[0]
                    for s in seeds
                    if len({at[s, q, m][key] for m in some}) > 1
                ]
                cells.append(interval(found, confidence))
            lines.append(f"| {q:.0%} | {name} | {' | '.join(cells)} |")
    return lines


def plot(
    seeds: Sequence[int], sparsities: Sequence[float], methods: Sequence[str], at: dict[Any, Row], path: Path
) -> None:
    """Objective against loss, a point for every method and network, before and after fine-tuning."""
    figure, axes = plt.subplots(2, len(sparsities), figsize=(4 * len(sparsities), 7), squeeze=False)
    panels: list[tuple[str, Callable[[Row], float]]] = [
        ("loss", lambda row: row["loss"]),
        ("loss after fine-tuning", lambda row: row["tuned_loss"]),
    ]
    for line, (label, measure) in zip(axes, panels, strict=True):
        for axis, q in zip(line, sparsities, strict=True):
            for i, m in enumerate(methods):
                x = [at[s, q, m]["value"] / at[s, q, "optimum"]["value"] for s in seeds]
                y = [measure(at[s, q, m]) for s in seeds]
                axis.scatter(x, y, s=14, color=f"C{i}", label=m, marker="*" if m == "optimum" else "o")
            axis.set(
                xscale="log",
                yscale="log",
                title=f"{q:.0%} pruned",
                xlabel="objective / optimum",
                ylabel=label,
            )
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
