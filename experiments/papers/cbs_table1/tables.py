"""Test accuracies beside the published ones."""

from functools import partial
from statistics import fmean, stdev

from cbs.study.frames import records
from cbs.study.markdown import markdown

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
NAMED = (16_180, 12_944, 9_708, 6_472, 3_236, 1_618, 647)
ORDER = ("MP", "WF-S", "RMP", "CBS-S", "WF", "CBS", "CBS scaled", "CBS 1e-3", "CBS 1e-3 scaled")
PUBLISHED = {
    "MP": (93.93, 93.78, 93.62, 92.89, 90.30, 83.64, 32.25),
    "WF-S": (93.92, 93.75, 93.48, 93.13, 90.77, 83.16, 34.55),
    "CBS-S": (93.91, 93.85, 93.75, 93.59, 92.37, 88.24, 66.64),
    "WF": (94.02, 93.82, 93.77, 93.57, 91.69, 85.54, 38.26),
    "CBS": (93.96, 93.96, 93.98, 93.90, 93.14, 88.92, 55.45),
}
"""Test accuracy %, dense 93.97."""


def accuracies(frame):
    """Test accuracies in percent by method, gradients, counts and sparsity."""
    found = {}
    for row in records(frame):
        key = row["method"], row["gradients"], row["counts"], row["sparsity"]
        found.setdefault(key, []).append((100 * row["accuracy"], row["kept"]))
    return found


def table(gradients, counts, frame):
    """Our mean over seeds and its spread, with the published figure and how far ours is from it.

    At the named counts magnitude is that of the published code, which rounds down.
    """
    found = accuracies(frame)
    names = [name for name in ORDER if any((name, gradients, counts, s) in found for s in SPARSITIES)]
    lines = []
    for i, sparsity in enumerate(SPARSITIES):
        cells, kept = [], NAMED[i]
        for name in names:
            exact = found.get((name, gradients, "floor", sparsity)) if counts == "named" else None
            values = exact or found.get((name, gradients, counts, sparsity))
            if values is None:
                cells.append("")
                continue
            kept, got = values[0][1] if counts == "kept" else kept, [value for value, _ in values]
            spread = f" ± {stdev(got):.2f}" if len(got) > 1 else ""
            known = PUBLISHED.get(name.removesuffix(" 1e-3"))
            against = f" ({known[i]:.2f}, {fmean(got) - known[i]:+.2f})" if known else ""
            cells.append(f"{fmean(got):.2f}{spread}{against}")
        if any(cells):
            lines.append([f"{sparsity:.2f}", f"{kept:,}", *cells])
    return markdown(["sparsity", "kept", *names], lines)


named, more, kept = (
    partial(table, 1_000, "named"),
    partial(table, 10_000, "named"),
    partial(table, 1_000, "kept"),
)


def ours(frame):
    """The project's own rows beside CBS as published."""
    found, names = accuracies(frame), ("joint", "joint, recalibrated")
    lines = [
        [
            f"{s:.2f}",
            *(f"{found[key][0][0]:.2f}" if (key := (name, 0, "named", s)) in found else "" for name in names),
            f"{PUBLISHED['CBS'][i]:.2f}",
        ]
        for i, s in enumerate(SPARSITIES)
    ]
    return markdown(["sparsity", *names, "CBS published"], lines)
