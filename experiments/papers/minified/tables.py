"""Tables of prunings, quantizations and solvers of columns, and accuracy against bytes."""

from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import t

from cbs.study.frames import read, records
from cbs.study.markdown import markdown

HOW = {
    "pruned": "as pruned", "tuned": "fine-tuned", "random": "from scratch, random weights",
    "original": "from scratch, first weights",
}  # fmt: skip


def spread(values):
    """Mean and half the width of a 95% interval over seeds, in percent; of fewer than three every value."""
    values = 100 * np.array(values)
    if len(values) < 3:  # an interval of two says nothing: both are shown
        return " / ".join(f"{value:.2f}" for value in values)
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.2f} ± {half:.2f}"


def collected(frame, network):
    """By what, method, amount and how: what was measured, by seed."""
    found = defaultdict(dict)
    for row in records(frame):
        if row["network"] != network or "group" in row:
            continue
        if row["solver"] == "prune":
            for way in row["ways"]:
                found[row["what"], row["method"], row["amount"], way["how"]][row["seed"]] = row | way
        elif row["solver"] == "quantize":
            found["bits", row["rounding"], row["bits"], ""][row["seed"]] = row
        else:
            found["dense", "", 0.0, ""][row["seed"]] = row
    return found


def accuracies(rows):
    """Accuracies, seed by seed."""
    return [rows[seed]["accuracy"] for seed in sorted(rows)]


def mean(rows, name):
    """Over seeds."""
    return float(np.mean([row[name] for row in rows.values()]))


def of_network(network, frame):
    """All tables of a network."""
    found = collected(frame, network)
    size = mean(found["dense", "", 0.0, ""], "bytes")
    dense = spread(accuracies(found["dense", "", 0.0, ""]))
    parts = [f"{network}: dense {dense}%, {size:,.0f} bytes\n"]
    for what in dict.fromkeys(key[0] for key in found if key[0] in ("weights", "neurons")):
        parts += [f"{network}: test accuracy, %, by the fraction of {what} pruned\n", prunings(found, what)]
    parts += ["Fine-tuned less from scratch, points, the same masks and seed\n", differences(found)]
    if any(key[0] == "bits" for key in found):
        parts += ["Quantized, a grid for every row\n", bits(found)]
        parts += ["At equal bytes: the best fine-tuned network of no more bytes than the quantized one\n"]
        parts += [equal_bytes(found)]
    return "\n".join(parts)


mlp, cnn = partial(of_network, "mlp"), partial(of_network, "cnn")


def prunings(found, what):
    """Accuracy as pruned, fine-tuned, and of the architecture from scratch."""
    amounts = sorted({key[2] for key in found if key[0] == what})
    lines = []
    for method in dict.fromkeys(key[1] for key in found if key[0] == what):
        for how, words in HOW.items():
            cells = [found.get((what, method, amount, how)) for amount in amounts]
            if any(cells):
                lines.append([method, words, *(rows and spread(accuracies(rows)) for rows in cells)])
    return markdown(["method", "how", *amounts], lines)


def differences(found):
    """Fine-tuned less from scratch, pair by pair of the same seed and masks, in points."""
    lines = []
    for (what, method, amount, how), tuned in list(found.items()):
        others = [found.get((what, method, amount, other)) for other in ("random", "original")]
        if how == "tuned" and all(others):
            pairs = (
                [(tuned[s]["accuracy"], other[s]["accuracy"]) for s in sorted(tuned)] for other in others
            )
            lines.append([what, method, amount, *(spread([a - b for a, b in some]) for some in pairs)])
    return markdown(
        ["network prunes", "method", "amount", "less random weights", "less first weights"], lines
    )


def bits(found):
    """Bytes and accuracy by rounding and bits."""
    lines = [
        [method, amount, f"{mean(rows, 'bytes'):,.0f}", spread(accuracies(rows))]
        for (what, method, amount, _), rows in found.items()
        if what == "bits"
    ]
    return markdown(["rounding", "bits", "bytes", "accuracy"], lines)


def equal_bytes(found):
    """For every quantized network the best that pruning to no more bytes reached, fine-tuned."""
    lines = []
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
            cells.append("{:.2%} ({}, {})".format(*max(fits)) if fits else None)
        lines.append([amount, f"{size:,.0f}", f"{mean(rows, 'accuracy'):.2%}", *cells])
    return markdown(["bits", "bytes", "quantized, feedback", "weights pruned", "neurons pruned"], lines)


def columns(frame):
    """Cost above the best known, gap proven, and seconds of every solver on columns that neurons feed."""
    rows = [row for row in records(frame) if "group" in row]
    cases = defaultdict(dict)
    for row in rows:
        cases[row["network"], row["group"], row["share"]][row["solver"]] = row
    lines = []
    for (network, group, _), here in cases.items():
        best, cells = min(row["value"] for row in here.values()), []
        for row in (here.get(solver) for solver in SOLVERS):
            proven = row is not None and np.isfinite(row["bound"])
            gap = f", gap {max(0.0, 1 - row['bound'] / row['value']):.1%}" if proven else ""
            cells.append(row and f"+{row['value'] / best - 1:.2%}{gap}, {row['cpu_seconds']:.2f} s")
        one = next(iter(here.values()))
        each = f" of {one['width']} columns" if one["width"] > 1 else ""
        lines.append([f"{network} {group}", f"{one['pruned']} of {one['units']}{each}", *cells])
    return markdown(["instance", "pruned", *SOLVERS], lines)


SOLVERS = ("greedy", "local-search", "osscar", "tabu", "relaxation", "branch-and-bound", "auto")


def plot(frame):
    """Draw accuracy against bytes of the perceptron, by what is pruned: results/plot.png."""
    from matplotlib.figure import Figure

    found = collected(frame, "mlp")
    figure = Figure(figsize=(12, 5), layout="tight")
    for axis, what in zip(figure.subplots(1, 2, sharey=True), ("weights", "neurons"), strict=True):
        for index, method in enumerate(dict.fromkeys(key[1] for key in found if key[0] == what)):
            curve(axis, found, (what, method), "tuned", method, "o-", f"C{index}")
        for how, words, mark in (("random", "random", "k^:"), ("original", "first", "kv:")):
            curve(axis, found, (what, "magnitude"), how, f"from scratch, {words} weights", mark)
        curve(axis, found, ("bits", "feedback"), "", "quantized, feedback", "s--", "0.5")
        axis.set(
            xscale="log", xlabel="bytes", ylabel="test accuracy, %", ylim=(80, 98), title=f"{what} pruned"
        )
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(Path(__file__).parent / "results" / "plot.png", dpi=110)


def curve(axis, found, head, how, label, mark, color=None):
    """Means over seeds, by bytes."""
    points = [rows for key, rows in found.items() if key[:2] == head and key[3] == how]
    pairs = sorted((mean(rows, "bytes"), 100 * mean(rows, "accuracy")) for rows in points)
    if pairs:
        extra = {"color": color} if color else {}
        axis.plot(*zip(*pairs, strict=True), mark, label=label, markersize=4, **extra)


if __name__ == "__main__":
    plot(read(Path(__file__).parent / "results" / "cells.csv"))
