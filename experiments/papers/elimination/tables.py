"""Tables and violin plots of the rules, over networks and seeds."""

from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from cbs.study.frames import read, records
from cbs.study.markdown import markdown

COLOURS = {
    "elimination": "tab:blue", "elimination-nonlinear": "tab:cyan", "elimination-joint": "tab:red",
    "magnitude": "tab:orange", "sensitivity": "tab:green", "random": "tab:gray", "narrower": "tab:purple",
}  # fmt: skip
"""Of every rule, in the order of the tables."""
SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Of the tables over all networks."""
BEFORE = ("error", "train_loss", "loss")
"""Measures before retraining: what the combinatorial rule minimises comes first."""
WORDS = {"loss": "test_loss", "more_loss": "more_test_loss"}


def task(name, frame):
    """All tables of one of the tasks."""
    rows = [row for row in records(frame) if row["solver"] == "prune" and row["task"] == name]
    parts = [*tables(name, rows), to_dense(name, rows), wins(name, rows), by_sparsity(name, rows)]
    return "\n".join(f"{title}\n\n{text}" for title, text in [*parts, seconds(name, rows)])


mnist, diffusion = partial(task, "mnist"), partial(task, "diffusion")


def collected(rows, field):
    """By network and noise, rule, and sparsity: the values of all seeds."""
    found = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for row in rows:
        if not np.isnan(row.get(field, np.nan)):
            found[row["network"], row["noise"]][row["rule"]][row["sparsity"]][row["seed"]] = row[field]
    return found


def tables(name, rows):
    """Means over seeds, with standard deviations, before and after retraining."""
    columns = {
        "error": "half the mean squared change of the outputs, calibration data, before retraining",
        "loss": "test loss before retraining", "accuracy": "test accuracy before retraining",
        "more_loss": "test loss after retraining", "more_accuracy": "test accuracy after retraining",
    }  # fmt: skip
    for field, what in columns.items():
        for case, rules in sorted(collected(rows, field).items()):
            noise = f", noise {case[1]:g}" if name == "diffusion" else ""
            dense = rules.get("dense", {}).get(0.0, {})
            note = f"; dense {number(dense.values())}" if dense and field != "error" else ""
            sparsities = sorted({s for rule in COLOURS for s in rules.get(rule, {})})
            lines = [
                [rule, *(number(rules[rule][s].values()) if s in rules[rule] else "" for s in sparsities)]
                for rule in COLOURS
                if rule in rules and (rule != "narrower" or field != "error")
            ]
            title = f"{name}, {case[0]}{noise}: {what}{note}"
            yield title, markdown(["rule", *sparsities], lines)


def number(values):
    """Mean, and standard deviation of more than one."""
    values = np.array(list(values))
    spread = f" ± {values.std(ddof=1):.2g}" if len(values) > 1 else ""
    return f"{values.mean():.4g}{spread}"


def pairs(found, rule, other):
    """Values of two rules on the same network, by sparsity."""
    result = defaultdict(list)
    for rules in found.values():
        for sparsity, seeds in rules[rule].items():
            there = rules[other][sparsity]
            result[sparsity] += [(value, there[seed]) for seed, value in seeds.items() if seed in there]
    return result


def wins(name, rows):
    """How often the combinatorial rule, and the linear one, are at or below others, network by network."""
    lines = []
    for field in (*BEFORE, "more_loss"):
        found = collected(rows, field)
        for rule in ("elimination-joint", "elimination"):
            for other in COLOURS:
                if other == rule or (other == "narrower" and field != "more_loss"):
                    continue
                both = [pair for some in pairs(found, rule, other).values() for pair in some]
                if both:
                    a, b = np.array(both).T
                    ratio = np.exp(np.log(np.maximum(a, 1e-12) / np.maximum(b, 1e-12)).mean())
                    share = f"{int((a <= b).sum())} of {len(a)}"
                    lines.append([WORDS.get(field, field), rule, other, share, f"{ratio:.3g}"])
    title = f"{name}: networks and sparsities at which a rule is at or below another, seed by seed"
    head = ["measure", "rule", "against", "at or below", "geometric mean of the ratio"]
    return title, markdown(head, lines)


def to_dense(name, rows):
    """Test losses as multiples of the dense network's, over all networks; before retraining and after it."""
    lines = []
    for field, when in (("loss", "before"), ("more_loss", "after")):
        found = collected(rows, field)
        for rule in COLOURS:
            cells = []
            for sparsity in SPARSITIES:
                ratios = [
                    value / rules["dense"][0.0][seed]
                    for rules in found.values()
                    for seed, value in rules[rule][sparsity].items()
                    if seed in rules["dense"][0.0]
                ]
                cells.append(f"{np.exp(np.log(ratios).mean()):.3g} ({max(ratios):.3g})" if ratios else "")
            lines.append([rule, when, *cells])
    title = f"{name}: test loss divided by the same network's dense one, geometric mean (largest)"
    return title, markdown(["rule", "when", *SPARSITIES], lines)


def by_sparsity(name, rows):
    """How often a rule is at or below another at each sparsity, and by what it is above at worst."""
    against = [
        ("elimination-joint", other) for other in ("elimination", "elimination-nonlinear", "magnitude")
    ]
    against += [("elimination", other) for other in ("elimination-nonlinear", "magnitude", "narrower")]
    lines = []
    for field, when in (("loss", "before"), ("more_loss", "after")):
        found = collected(rows, field)
        for rule, other in against:
            if other == "narrower" and when == "before":
                continue
            cells = []
            for both in (pairs(found, rule, other).get(sparsity) for sparsity in SPARSITIES):
                ratios = [one / another for one, another in both or ()]
                below = sum(ratio <= 1 for ratio in ratios)
                cells.append(f"{below} of {len(ratios)} ({max(ratios):.4g})" if ratios else "")
            lines.append([rule, other, when, *cells])
    title = f"{name}: test loss at or below (largest ratio), by sparsity, over all networks"
    return title, markdown(["rule", "against", "when", *SPARSITIES], lines)


def seconds(name, rows):
    """Seconds of one core that a pruning took."""
    taken = defaultdict(list)
    for row in rows:
        if row["rule"] not in ("narrower", "dense"):
            taken[row["network"], row["rule"]].append(row["cpu_seconds"])
    order = sorted(taken, key=lambda key: (key[0], list(COLOURS).index(key[1])))
    lines = [[*key, f"{np.median(taken[key]):.2g}"] for key in order]
    title = f"{name}: seconds of one core for a sparsity, median"
    return title, markdown(["network", "rule", "seconds"], lines)


def ranks(frame):
    """Rank correlation of the linear with the measured importances: mean and least over seeds."""
    cases = defaultdict(list)
    for row in records(frame):
        if row["solver"] == "ranks":
            cases[row["network"], row["noise"]].append((row["spearman"], row["spearman_live"]))
    lines = [
        [*case, *(f"{v.mean():.3f} ({v.min():.3f})" for v in np.array(found).T)]
        for case, found in cases.items()
    ]
    head = ["network", "noise", "all weights: mean (least)", "weights that matter at all: mean (least)"]
    return markdown(head, lines)


def plots(frame):
    """Draw the violins of both tasks: results/mnist.png and results/diffusion.png."""
    for name in ("mnist", "diffusion"):
        rows = [row for row in records(frame) if row["solver"] == "prune" and row["task"] == name]
        violins(name, rows, Path(__file__).parent / "results" / f"{name}.png")


def violins(name, rows, path):
    """Test loss over seeds, network by network, before retraining and after it."""
    from matplotlib.figure import Figure

    before, after = (collected(rows, field) for field in ("loss", "more_loss"))
    cases = sorted(before)
    figure = Figure(figsize=(13, 3.2 * len(cases)), layout="tight")
    axes = figure.subplots(len(cases), 2, squeeze=False)
    for case, pair in zip(cases, axes, strict=True):
        for axis, found, when in zip(pair, (before, after), ("before", "after"), strict=True):
            rules = found[case]
            sparsities = sorted({s for rule in COLOURS for s in rules.get(rule, {})})
            for k, (rule, colour) in enumerate(COLOURS.items()):
                have = [s for s in sparsities if s in rules.get(rule, {})]
                if not have or (rule == "narrower" and when == "before"):
                    continue
                values = [list(rules[rule][s].values()) for s in have]
                places = [sparsities.index(s) + (k - 3) * 0.11 for s in have]
                drawn = axis.violinplot(values, places, widths=0.1, showmeans=True)
                for part in [
                    *drawn["bodies"],
                    *(drawn[key] for key in ("cmeans", "cmins", "cmaxes", "cbars")),
                ]:
                    part.set_color(colour)
                axis.plot([], [], color=colour, label=rule)
            dense = rules.get("dense", {}).get(0.0, {})
            if dense:
                axis.axhline(np.mean(list(dense.values())), color="black", linewidth=0.7, linestyle=":")
            axis.set_yscale("log")
            axis.set_xticks(range(len(sparsities)), [f"{s:g}" for s in sparsities])
            noise = f", noise {case[1]:g}" if name == "diffusion" else ""
            axis.set_title(f"{case[0]}{noise}: test loss {when} retraining", fontsize=9)
    axes[0, 1].legend(fontsize=6)
    figure.supxlabel("fraction of weights pruned; dotted: dense", fontsize=9)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    plots(read(Path(__file__).parent / "results" / "cells.csv"))
