"""Tables and violin plots of the rows."""

import csv
from collections import defaultdict

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

COLOURS = {
    "elimination": "tab:blue", "elimination-nonlinear": "tab:cyan", "elimination-joint": "tab:red",
    "magnitude": "tab:orange", "sensitivity": "tab:green", "random": "tab:gray", "narrower": "tab:purple",
}  # fmt: skip
"""Of every rule, in the order of the tables."""
SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Of the tables over all networks."""
BEFORE = ("error", "train_loss", "test_loss")
"""Measures before retraining: what the combinatorial rule minimises comes first."""


def short(value):
    """A number of a row, in a few digits."""
    return f"{value:.6g}" if isinstance(value, float) else value


def write(results):
    """Make `table.md` and the plots of what is in a folder."""
    lines = []
    for name in ("mnist", "diffusion"):
        path = results / f"{name}.csv"
        if path.exists():
            rows = list(csv.DictReader(path.open()))
            lines += tables(name, rows)
            violins(name, rows, results / f"{name}.png")
    if (results / "ranks.csv").exists():
        lines += ranks(list(csv.DictReader((results / "ranks.csv").open())))
    (results / "table.md").write_text("\n".join(lines))
    print("\n".join(lines))


def collected(rows, field):
    """By network and noise, rule, and sparsity: the values of all seeds."""
    found = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for row in rows:
        if row[field]:
            case = row["network"], float(row["noise"])
            found[case][row["rule"]][float(row["sparsity"])][int(row["seed"])] = float(row[field])
    return found


def tables(name, rows):
    """Means over seeds, with standard deviations, before and after retraining; and who is the best."""
    lines = []
    columns = [("error", "half the mean squared change of the outputs, calibration data, before retraining")]
    columns += [("test_loss", "test loss before retraining")]
    if name == "mnist":
        columns += [("test_accuracy", "test accuracy before retraining")]
    columns += [("more_test_loss", "test loss after retraining")]
    if name == "mnist":
        columns += [("more_test_accuracy", "test accuracy after retraining")]
    for field, what in columns:
        for case, rules in sorted(collected(rows, field).items()):
            noise = f", noise {case[1]:g}" if name == "diffusion" else ""
            dense = rules.get("dense", {}).get(0.0, {})
            note = f"; dense {number(dense.values())}" if dense and field != "error" else ""
            lines += ["", f"{name}, {case[0]}{noise}: {what}{note}", ""]
            sparsities = sorted({s for rule in COLOURS for s in rules.get(rule, {})})
            lines += [
                f"| rule | {' | '.join(f'{s:g}' for s in sparsities)} |",
                "|---" * (len(sparsities) + 1) + "|",
            ]
            for rule in COLOURS:
                if rule not in rules or (rule == "narrower" and field == "error"):
                    continue
                cells = [number(rules[rule][s].values()) if s in rules[rule] else "" for s in sparsities]
                lines.append(f"| {rule} | {' | '.join(cells)} |")
    return [*lines, *to_dense(name, rows), *wins(name, rows), *by_sparsity(name, rows), *seconds(name, rows)]


def number(values):
    """Mean, and standard deviation of more than one."""
    values = np.array(list(values))
    spread = f" ± {values.std(ddof=1):.2g}" if len(values) > 1 else ""
    return f"{values.mean():.4g}{spread}"


def wins(name, rows):
    """How often the combinatorial rule, and the linear one, are at or below others, network by network."""
    lines = ["", f"{name}: networks and sparsities at which a rule is at or below another, seed by seed", ""]
    lines += [
        "| measure | rule | against | at or below | geometric mean of the ratio |",
        "|---|---|---|---|---|",
    ]
    fields = [*BEFORE, "more_test_loss"]
    for field in fields:
        found = collected(rows, field)
        for rule in ("elimination-joint", "elimination"):
            for other in COLOURS:
                if other == rule or (other == "narrower" and field != "more_test_loss"):
                    continue
                pairs = [
                    (value, rules[other][s][seed])
                    for rules in found.values()
                    for s, seeds in rules[rule].items()
                    for seed, value in seeds.items()
                    if seed in rules[other][s]
                ]
                if pairs:
                    a, b = np.array(pairs).T
                    ratio = np.exp(np.log(np.maximum(a, 1e-12) / np.maximum(b, 1e-12)).mean())
                    below = int((a <= b).sum())
                    lines.append(f"| {field} | {rule} | {other} | {below} of {len(a)} | {ratio:.3g} |")
    return lines


def to_dense(name, rows):
    """Test losses as multiples of the dense network's, over all networks; before retraining and after it."""
    lines = ["", f"{name}: test loss divided by the same network's dense one, geometric mean (largest)", ""]
    lines += [f"| rule | when | {' | '.join(f'{s:g}' for s in SPARSITIES)} |", "|---" * 7 + "|"]
    for field, when in (("test_loss", "before"), ("more_test_loss", "after")):
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
                mean = np.exp(np.log(ratios).mean()) if ratios else None
                cells.append(f"{mean:.3g} ({max(ratios):.3g})" if ratios else "")
            lines.append(f"| {rule} | {when} | {' | '.join(cells)} |")
    return lines


def by_sparsity(name, rows):
    """How often a rule is at or below another at each sparsity, and by what it is above at worst."""
    lines = ["", f"{name}: test loss at or below (largest ratio), by sparsity, over all networks", ""]
    lines += [f"| rule | against | when | {' | '.join(f'{s:g}' for s in SPARSITIES)} |", "|---" * 8 + "|"]
    pairs = [("elimination-joint", other) for other in ("elimination", "elimination-nonlinear", "magnitude")]
    pairs += [("elimination", other) for other in ("elimination-nonlinear", "magnitude", "narrower")]
    for field, when in (("test_loss", "before"), ("more_test_loss", "after")):
        found = collected(rows, field)
        for rule, other in pairs:
            if other == "narrower" and when == "before":
                continue
            cells = []
            for sparsity in SPARSITIES:
                ratios = [
                    value / rules[other][sparsity][seed]
                    for rules in found.values()
                    for seed, value in rules[rule][sparsity].items()
                    if seed in rules[other][sparsity]
                ]
                below = sum(ratio <= 1 for ratio in ratios)
                cells.append(f"{below} of {len(ratios)} ({max(ratios):.4g})" if ratios else "")
            lines.append(f"| {rule} | {other} | {when} | {' | '.join(cells)} |")
    return lines


def seconds(name, rows):
    """Seconds of one core that pruning took: those of all sparsities together, divided by their number."""
    lines = ["", f"{name}: seconds of one core for a sparsity, median", "", "| network | rule | seconds |"]
    lines += ["|---|---|---|"]
    taken = defaultdict(list)
    for row in rows:
        if row["rule"] not in ("narrower", "dense"):
            taken[row["network"], row["rule"]].append(float(row["seconds"]))
    for network, rule in sorted(taken, key=lambda key: (key[0], list(COLOURS).index(key[1]))):
        lines.append(f"| {network} | {rule} | {np.median(taken[network, rule]):.2g} |")
    return lines


def ranks(rows):
    """Rank correlation of the linear with the measured importances."""
    lines = [
        "",
        "Spearman's rank correlation of the linear and the non-linear importances, over all seeds",
        "",
    ]
    lines += ["| network | noise | all weights: mean (least) | weights that matter at all: mean (least) |"]
    lines += ["|---|---|---|---|"]
    cases = defaultdict(list)
    for row in rows:
        cases[row["network"], row["noise"]].append((float(row["spearman"]), float(row["spearman_live"])))
    for (network, noise), pairs in cases.items():
        cells = [f"{v.mean():.3f} ({v.min():.3f})" for v in np.array(pairs).T]
        lines.append(f"| {network} | {noise} | {cells[0]} | {cells[1]} |")
    return [*lines, ""]


def violins(name, rows, path):
    """Test loss over seeds, network by network, before retraining and after it."""
    before, after = (collected(rows, field) for field in ("test_loss", "more_test_loss"))
    cases = sorted(before)
    figure, axes = plt.subplots(len(cases), 2, figsize=(13, 3.2 * len(cases)), squeeze=False)
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
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
