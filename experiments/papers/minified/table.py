"""Tables and the plot of accuracy against bytes, from the rows that `run.py` and `columns.py` left."""

import csv
import math
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

RESULTS = Path(__file__).parent / "results"
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Student's 97.5% quantile by degrees of freedom, for 95% intervals over seeds."""


def read(name):
    with (RESULTS / name).open() as file:
        return list(csv.DictReader(file))


def spread(values):
    """Mean and half the width of a 95% interval over seeds, in percent; of fewer than three every value."""
    values = 100 * np.array(values)
    if len(values) < 3:  # an interval of two says nothing: both are shown
        return " / ".join(f"{value:.2f}" for value in values)
    half = T95[len(values) - 1] * values.std(ddof=1) / math.sqrt(len(values))
    return f"{values.mean():.2f} ± {half:.2f}"


def collected(rows, network):
    found = defaultdict(dict)
    for row in rows:
        if row["network"] == network:
            key = row["what"], row["method"], row["amount"], row["how"]
            found[key][int(row["seed"])] = row
    return found


def table(found, what, heading):
    """Accuracy as pruned, fine-tuned, and of the architecture from scratch."""
    amounts = sorted({key[2] for key in found if key[0] == what}, key=float)
    methods = dict.fromkeys(key[1] for key in found if key[0] == what)
    lines = [f"\n### {heading}\n"]
    lines += ["| method | how | " + " | ".join(amounts) + " |", "|---" * (len(amounts) + 2) + "|"]
    for method in methods:
        for how, words in (
            ("pruned", "as pruned"),
            ("tuned", "fine-tuned"),
            ("random", "from scratch, random weights"),
            ("original", "from scratch, first weights"),
        ):
            cells = [found.get((what, method, amount, how), {}) for amount in amounts]
            if any(cells):
                shown = [spread([float(r["accuracy"]) for r in c.values()]) if c else "-" for c in cells]
                lines.append(f"| {method} | {words} | " + " | ".join(shown) + " |")
    return lines


def differences(found):
    """Fine-tuned less from scratch, pair by pair of the same seed and masks, in points."""
    lines = ["\n### Fine-tuned less from scratch, points, the same masks and seed\n"]
    lines += [
        "| network prunes | method | amount | less random weights | less first weights |",
        "|---" * 5 + "|",
    ]
    for (what, method, amount, how), tuned in found.items():
        others = [found.get((what, method, amount, other), {}) for other in ("random", "original")]
        if how == "tuned" and all(others):
            cells = []
            for other in others:
                seeds = sorted(set(tuned) & set(other))
                cells.append(
                    spread([float(tuned[s]["accuracy"]) - float(other[s]["accuracy"]) for s in seeds])
                )
            lines.append(f"| {what} | {method} | {amount} | " + " | ".join(cells) + " |")
    return lines


def bits(found):
    lines = [
        "\n### Quantized, a grid for every row\n",
        "| rounding | bits | bytes | accuracy |",
        "|---" * 4 + "|",
    ]
    for (what, method, amount, _), rows in found.items():
        if what == "bits":
            size = np.mean([float(row["bytes"]) for row in rows.values()])
            accuracy = spread([float(row["accuracy"]) for row in rows.values()])
            lines.append(f"| {method} | {amount} | {size:,.0f} | {accuracy} |")
    return lines


def equal_bytes(found):
    """For every quantized network the best that pruning to no more bytes reached, fine-tuned."""
    lines = ["\n### At equal bytes: the best fine-tuned network of no more bytes than the quantized one\n"]
    lines += ["| bits | bytes | quantized, feedback | weights pruned | neurons pruned |", "|---" * 5 + "|"]

    def mean(rows, name):
        return float(np.mean([float(row[name]) for row in rows.values()]))

    for (what, method, amount, _), rows in found.items():
        if what != "bits" or method != "feedback":
            continue
        size, cells = mean(rows, "bytes"), []
        for kind in ("weights", "neurons"):
            fits = [
                (mean(tuned, "accuracy"), key[1], key[2])
                for key, tuned in found.items()
                if key[0] == kind and key[3] == "tuned" and mean(tuned, "bytes") <= size
            ]
            cells.append("{:.2%} ({}, {})".format(*max(fits)) if fits else "-")
        accuracy = mean(rows, "accuracy")
        lines.append(f"| {amount} | {size:,.0f} | {accuracy:.2%} | " + " | ".join(cells) + " |")
    return lines


def columns():
    lines = ["\n### Columns that neurons feed: cost above the best known, gap proven, CPU seconds\n"]
    rows = read("columns.csv")
    solvers = [*dict.fromkeys(row["solver"] for row in rows)]
    lines += ["| instance | pruned | " + " | ".join(solvers) + " |", "|---" * (len(solvers) + 2) + "|"]
    cases = dict.fromkeys((row["instance"], row["units"], row["width"], row["pruned"]) for row in rows)
    for name, units, width, pruned in cases:
        here = {r["solver"]: r for r in rows if (r["instance"], r["pruned"]) == (name, pruned)}
        best, cells = min(float(row["value"]) for row in here.values()), []
        for solver in solvers:
            if solver not in here:
                cells.append("-")
                continue
            value, bound = float(here[solver]["value"]), here[solver]["bound"]
            gap = f", gap {max(0.0, 1 - float(bound) / value):.1%}" if bound else ""
            cells.append(f"+{value / best - 1:.2%}{gap}, {float(here[solver]['seconds']):.2f} s")
        each = f" of {width} columns" if int(width) > 1 else ""
        lines.append(f"| {name} | {pruned} of {units}{each} | " + " | ".join(cells) + " |")
    return lines


def draw(found):
    figure, axes = plt.subplots(1, 2, figsize=(12, 5), sharey=True)
    for axis, what in zip(axes, ("weights", "neurons"), strict=True):
        methods = dict.fromkeys(key[1] for key in found if key[0] == what)
        for index, method in enumerate(methods):
            points = [rows for key, rows in found.items() if key[:2] == (what, method) and key[3] == "tuned"]
            curve(axis, points, method, "o-", f"C{index}")
        for how, mark in (("random", "k^:"), ("original", "kv:")):
            points = [
                rows
                for key, rows in found.items()
                if key[0] == what and key[1] == "magnitude" and key[3] == how
            ]
            curve(axis, points, f"from scratch, {'first' if how == 'original' else how} weights", mark, None)
        points = [rows for key, rows in found.items() if key[0] == "bits" and key[1] == "feedback"]
        curve(axis, points, "quantized, feedback", "s--", "0.5")
        axis.set(
            xscale="log", xlabel="bytes", ylabel="test accuracy, %", ylim=(80, 98), title=f"{what} pruned"
        )
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(RESULTS / "plot.png", dpi=110)


def curve(axis, points, label, mark, color):
    pairs = sorted(
        tuple(np.mean([[float(row["bytes"]), 100 * float(row["accuracy"])] for row in rows.values()], axis=0))
        for rows in points
    )
    if pairs:
        axis.plot(
            *zip(*pairs, strict=True), mark, label=label, markersize=4, **({"color": color} if color else {})
        )


def main():
    rows, lines = read("rows.csv"), []
    for network in dict.fromkeys(row["network"] for row in rows):
        found = collected(rows, network)
        dense = found["dense", "-", "0.0", "-"]
        accuracy = spread([float(row["accuracy"]) for row in dense.values()])
        size = next(iter(dense.values()))["bytes"]
        lines.append(f"\n## {network}: dense {accuracy}%, {int(size):,} bytes, {len(dense)} seeds")
        for what in ("weights", "neurons"):
            if any(key[0] == what for key in found):
                lines += table(found, what, f"{network}: test accuracy, %, by the fraction of {what} pruned")
        lines += differences(found)
        if any(key[0] == "bits" for key in found):
            lines += bits(found) + equal_bytes(found)
        if network == "mlp":
            draw(found)
    if (RESULTS / "columns.csv").exists():
        lines += columns()
    (RESULTS / "table.md").write_text("\n".join(lines).lstrip() + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
