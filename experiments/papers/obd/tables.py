"""Tables and the plot of what the diagonals, deletions and retraining gave."""

from pathlib import Path

import numpy as np

from cbs.study.frames import exploded, read, records
from cbs.study.markdown import markdown, steps

HOLDS = 1.25
"""The prediction holds while predicted and measured loss are this near, as a ratio."""
ALIKE = 0.01
"""Test accuracy lost that counts as unchanged: 3 to 4 of the 360 digits."""
SIZE = 2_556


def diagonals(frame):
    """Means over seeds, with the standard deviation, of ranks and sums beside the exact diagonal's."""
    groups = {}
    for _, row in exploded(frame[frame["solver"] == "diagonals"], "diagonals").iterrows():
        given = row["parameters"]["parameters"]
        groups.setdefault((given["of"], given["activation"], row["diagonal"]), []).append(row)
    lines = [
        [
            *key,
            *(spread([row[name] for row in rows]) for name in ("rank_h", "rank_saliency", "ratio")),
            f"{np.mean([row['negative'] for row in rows]):.0f}",
        ]
        for key, rows in groups.items()
    ]
    head = [
        "loss",
        "activation",
        "diagonal",
        "rank correlation of h",
        "of h w^2",
        "sum / exact sum",
        "negative",
    ]
    return markdown(head, lines)


def curves(frame, function, by):
    """By loss and order, or method, the curves of all seeds."""
    groups = {}
    for row in records(frame):
        if row["solver"] == function:
            groups.setdefault((row["of"], row[by]), []).append(list(steps(row["curve"])))
    return groups


def deletions(frame):
    """Up to how many deletions the loss is as predicted, and test accuracy unchanged."""
    lines = []
    for key, runs in curves(frame, "deletions", "order").items():
        increases = (f"{np.median([increase(run, k) for run in runs]):.2f}" for k in (300, 800, 1500))
        ends = spread([holds(run) for run in runs], "{:.0f}"), spread([*map(unchanged, runs)], "{:.0f}")
        lines.append([*key, ends[0], *increases, ends[1]])
    head = [
        "loss", "order", "loss as predicted up to", "increase predicted / measured at 300", "at 800",
        "at 1,500", "test accuracy unchanged up to",
    ]  # fmt: skip
    return markdown(head, lines)


def retraining(frame):
    """Up to how many deletions test accuracy is unchanged with retraining."""
    lines = []
    for key, runs in curves(frame, "retraining", "method").items():
        ends, cells = [unchanged(run) for run in runs], []
        for k in (0, 0.6, 0.9):
            near = [min(run, key=lambda step: abs(step["deleted"] - k * SIZE)) for run in runs]
            cells.append(spread([100 * step["test_accuracy"] for step in near], "{:.2f}"))
        lines.append([*key, spread(ends, "{:.0f}"), f"{np.mean(ends) / SIZE:.0%}", *cells])
    head = ["loss", "method", "test accuracy unchanged up to", "share", "dense", "at 60% deleted", "at 90%"]
    return markdown(head, lines)


def holds(run):
    """Deletions up to which the predicted loss is within `HOLDS` of the measured one."""
    good = [step["loss"] / HOLDS <= step["predicted"] <= step["loss"] * HOLDS for step in run]
    first = good.index(False) if False in good else len(good)
    return run[first - 1]["deleted"] if first else 0


def increase(run, count):
    """Predicted over measured increase of the loss, at about so many deletions."""
    step, start = min(run, key=lambda step: abs(step["deleted"] - count)), run[0]["loss"]
    return (step["predicted"] - start) / (step["loss"] - start)


def unchanged(run):
    """Most deletions up to which test accuracy is that of the dense network but for `ALIKE`."""
    good = [step["test_accuracy"] >= run[0]["test_accuracy"] - ALIKE for step in run]
    return run[(good.index(False) if False in good else len(good)) - 1]["deleted"]


def spread(found, form="{:.3f}"):
    """Mean, and the standard deviation over seeds."""
    if len(found) == 1:
        return form.format(found[0])
    return f"{form} +- {form}".format(np.mean(found), np.std(found, ddof=1))


def plot(frame):
    """Draw predicted and measured loss over deletions, and test accuracy with retraining, in results."""
    from matplotlib.figure import Figure

    parts = {}
    for (loss, name), runs in curves(frame, "deletions", "order").items():
        for column, style, how in (("loss", "-", "measured"), ("predicted", ":", "predicted")):
            logs = [[np.log(max(step[column], 1e-9)) for step in run] for run in runs]
            line = runs[0], np.exp(np.mean(logs, axis=0)), style, f"{name}, {how}"
            parts.setdefault(("without", loss), []).append(line)
    for (loss, name), runs in curves(frame, "retraining", "method").items():
        for column, style, how in (
            ("test_accuracy", "-", ""),
            ("test_accuracy_before", ":", ", before retraining"),
        ):
            line = runs[0], np.mean([[100 * step[column] for step in run] for run in runs], axis=0)
            parts.setdefault(("with", loss), []).append((*line, style, f"{name}{how}"))
    figure = Figure(figsize=(5 * len(parts), 4), layout="constrained")
    axes = figure.subplots(1, len(parts), squeeze=False)[0]
    for axis, ((when, loss), lines) in zip(axes, parts.items(), strict=True):
        for i, (run, values, style, label) in enumerate(lines):
            axis.plot([step["deleted"] for step in run], values, style, color=f"C{i // 2}", label=label)
        axis.set(title=f"{when} retraining, {loss}", xlabel="weights deleted")
        if when == "without":
            axis.set(yscale="log", ylabel="loss")
        else:
            axis.set(ylim=(40, 100), ylabel="test accuracy %")
        axis.axvline(800 if when == "without" else 1500, color="grey", lw=0.5)
        axis.legend(fontsize=6)
    figure.savefig(Path(__file__).parent / "results" / "plot.png", dpi=110)


if __name__ == "__main__":
    plot(read(Path(__file__).parent / "results" / "cells.csv"))
