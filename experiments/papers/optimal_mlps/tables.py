"""What the optimum gains, and whether a better objective is a better network: means over networks."""

from pathlib import Path

import numpy as np
import scipy.stats

from cbs.study.frames import read, records
from cbs.study.markdown import markdown

MEASURED = {
    "train_loss": "loss", "accuracy": "test accuracy", "tuned_train_loss": "tuned loss",
    "tuned_accuracy": "tuned test accuracy",
}  # fmt: skip
SAME = "local-search", "obc", "alps", "sparsegpt", "wanda", "magnitude"
"""Heuristics for the optimum's own objective."""


def interval(values):
    """Mean and Student's half width of its 95% confidence interval over independent seeds."""
    found = np.asarray(values, dtype=float)
    if len(found) < 2:
        return f"{found.mean():.3g}"
    half = scipy.stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5
    return f"{found.mean():.3g} +- {half:.2g}"


class Cells:
    """Cells by seed, sparsity and method; accuracies in percent. Only seeds that have all count."""

    def __init__(self, frame):
        rows = records(frame)
        for row in rows:
            row |= {name: 100 * row[name] for name in ("accuracy", "tuned_accuracy")}
        self.at = {(row["seed"], row["sparsity"], row["method"]): row for row in rows}
        self.methods = list(dict.fromkeys(row["method"] for row in rows))
        self.sparsities = sorted({row["sparsity"] for row in rows})
        places = [(q, m) for q in self.sparsities for m in self.methods]
        seeds = sorted({row["seed"] for row in rows})
        self.seeds = [s for s in seeds if all((s, *place) in self.at for place in places)]

    def of(self, sparsity, method):
        """A method's cells, seed by seed."""
        return [self.at[s, sparsity, method] for s in self.seeds]


def methods(frame):
    """Every method's objective over the optimum's, and what was measured."""
    cells, lines = Cells(frame), []
    for q in cells.sparsities:
        for m in cells.methods:
            own, best = cells.of(q, m), cells.of(q, "optimum")
            ratio = [row["value"] / optimum["value"] for row, optimum in zip(own, best, strict=True)]
            values = (interval([row[name] for row in own]) for name in MEASURED)
            seconds = np.mean([row["cpu_seconds"] for row in own])
            lines.append([f"{q:.0%}", m, interval(ratio), *values, f"{seconds:.1f}"])
    head = ["pruned", "method", "objective / optimum", *MEASURED.values(), "CPU s"]
    return markdown(head, lines) + f"\nSeeds: {', '.join(map(str, cells.seeds))}.\n"


def gains(frame):
    """The optimum minus each heuristic, and minus each seed's best, paired by seeds."""
    cells, lines = Cells(frame), []
    for q in cells.sparsities:
        rivals = {name: cells.of(q, name) for name in SAME}
        best = [min(some, key=lambda row: row["value"]) for some in zip(*rivals.values(), strict=True)]
        optimum = cells.of(q, "optimum")
        for name, rows in {"best": best, **rivals}.items():
            pairs = list(zip(optimum, rows, strict=True))
            relative = interval([one["value"] / other["value"] - 1 for one, other in pairs])
            values = (interval([one[key] - other[key] for one, other in pairs]) for key in MEASURED)
            lines.append([f"{q:.0%}", name, relative, *values])
    head = [
        "pruned", "heuristic", "objective, relative",
        *(f"{words}, points" if "accuracy" in words else words for words in MEASURED.values()),
    ]  # fmt: skip
    return markdown(head, lines)


def ranks(frame):
    """Spearman's rank correlation of the objective with what is measured, over methods in a network.

    Random is left out, which would make any correlation large.
    """
    cells, lines = Cells(frame), []
    sets = {"all": [m for m in cells.methods if m != "random"], "close": ["optimum", *SAME[:4]]}
    for q in cells.sparsities:
        for name, some in sets.items():
            values = []
            for key in MEASURED:
                found = []
                for s in cells.seeds:
                    rows = [cells.at[s, q, m] for m in some]
                    if len({row[key] for row in rows}) > 1:
                        pair = [row["value"] for row in rows], [row[key] for row in rows]
                        found.append(scipy.stats.spearmanr(*pair)[0])
                values.append(interval(found))
            lines.append([f"{q:.0%}", name, *values])
    note = "\nRandom is left out; `close` are the optimum, local search, obc, alps and sparsegpt only.\n"
    return markdown(["pruned", "methods", *MEASURED.values()], lines) + note


def plot(frame):
    """Draw objective against loss, a point a method and network, before and after tuning, in results."""
    from matplotlib.figure import Figure

    cells = Cells(frame)
    figure = Figure(figsize=(4 * len(cells.sparsities), 7), layout="constrained")
    grid = figure.subplots(2, len(cells.sparsities), squeeze=False)
    for line, (key, label) in zip(
        grid, {"train_loss": "loss", "tuned_train_loss": "loss after fine-tuning"}.items(), strict=True
    ):
        for axis, q in zip(line, cells.sparsities, strict=True):
            for i, m in enumerate(cells.methods):
                pairs = zip(cells.of(q, m), cells.of(q, "optimum"), strict=True)
                x = [row["value"] / best["value"] for row, best in pairs]
                y = [row[key] for row in cells.of(q, m)]
                axis.scatter(x, y, s=14, color=f"C{i}", label=m, marker="*" if m == "optimum" else "o")
            axis.set(
                xscale="log",
                yscale="log",
                title=f"{q:.0%} pruned",
                xlabel="objective / optimum",
                ylabel=label,
            )
    grid[0, 0].legend(fontsize=7)
    figure.savefig(Path(__file__).parent / "results" / "plot.png", dpi=110)


if __name__ == "__main__":
    plot(read(Path(__file__).parent / "results" / "cells.csv"))
