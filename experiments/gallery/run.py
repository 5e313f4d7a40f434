"""Figures of what other experiments measured, and of what pruning looks like.

    python experiments/gallery/run.py [FIGURE ...]

Each figure has a function below; without names all are drawn, in about a minute. See README.md.
"""

import math
import statistics
import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cbs.study.calls import function
from cbs.study.frames import read, records

HERE = Path(__file__).parent
EXPERIMENTS = HERE.parent
BLUE, RED, GREEN, PINK, SKY, ORANGE, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F",
)  # fmt: skip
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""


def sheet(width: float, height: float, columns: int = 1, rows: int = 1):
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(rows, columns))
    for one in axes.ravel():
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25)
    return figure, axes


def bound() -> Figure:
    """Accuracy, and the layers' objectives over their certified lower bound, of some methods on digits."""
    shown = {
        "magnitude": RED, "wanda": ORANGE, "cbs": PINK, "sparsegpt": SKY, "obc": GREEN, "joint": BLUE,
    }  # fmt: skip
    facts = records(read(EXPERIMENTS / "methods_table/results/cells.csv"))
    figure, (left, right) = sheet(9.0, 3.4, columns=2)
    bounds = {}
    for method, colour in shown.items():
        mine = sorted((fact for fact in facts if fact["solver"] == method), key=lambda fact: fact["sparsity"])
        x = [100 * fact["sparsity"] for fact in mine]
        accuracy = [100 * fact["accuracy"] for fact in mine]
        left.plot(x, accuracy, "o-", color=colour, label=method, lw=1.6, ms=4)
        right.plot(x, [fact["value"] for fact in mine], "o-", color=colour, lw=1.6, ms=4)
        bounds |= {
            100 * fact["sparsity"]: max(fact["bound"], bounds.get(100 * fact["sparsity"], 0)) for fact in mine
        }
    right.set_yscale("log")
    floor = right.get_ylim()[0]
    right.fill_between([*bounds], [*bounds.values()], floor, color=GREY, alpha=0.2, lw=0)
    right.plot([*bounds], [*bounds.values()], "k--", lw=1)
    right.set_ylim(bottom=floor)
    right.text(74, floor * 1.6, "no mask is here: proven", color="0.3", ha="center")
    left.set(title="accuracy on held-out digits, %", xlabel="weights pruned, %")
    right.set(title="layers' objectives, and their lower bound", xlabel="weights pruned, %")
    left.legend(frameon=False, fontsize=9)
    return figure


def accuracy() -> Figure:
    """Accuracy after the network refit, beside published figures."""
    sys.path.insert(0, str(EXPERIMENTS / "accuracy/table"))
    from tables import PUBLISHED

    from cbs.study.frames import read, records

    found = records(read(EXPERIMENTS / "accuracy/table/results/cells.csv"))
    rows = [row for row in found if not row["labels"]]
    titles = {
        "mlpnet": "MLPNet on MNIST",
        "resnet20": "ResNet20 on CIFAR-10",
        "wide": "784-300-100-10 on MNIST",
    }
    figure, axes = sheet(11.0, 3.4, columns=3)
    for one, (name, title) in zip(axes, titles.items(), strict=True):
        mine = {}
        for row in rows:
            if row["network"] == name:
                mine.setdefault(100 * row["sparsity"], []).append(100 * row["accuracy"])
        dense = next(100 * row["dense_accuracy"] for row in rows if row["network"] == name)
        one.axhline(dense, color="0.5", ls=":", lw=1.2)
        one.text(max(mine), dense, " dense", color="0.4", va="bottom", ha="right")
        one.plot(
            sorted(mine), [statistics.mean(mine[s]) for s in sorted(mine)], "o-", color=BLUE, label="this"
        )
        for (label, known), colour in zip(PUBLISHED[name].items(), (RED, ORANGE), strict=False):
            x = [s for s in sorted(known) if 100 * s >= min(mine)]
            one.plot([100 * s for s in x], [known[s] for s in x], "s--", color=colour, label=label, ms=4)
        one.set(title=title, xlabel="weights pruned, %", ylabel="accuracy, %")
        one.legend(frameon=False, fontsize=9, loc="lower left")
    return figure


def solvers() -> Figure:
    """How many times as long as ours other exact solvers take, rows of trained networks."""
    ratios_of = function(f"{EXPERIMENTS / 'exact/tables.py'}:ratios")
    rows, _ = ratios_of(read(EXPERIMENTS / "exact/results/cells.csv"))
    rows = [row for row in rows if not row["peer"].startswith("better")]
    figure, axes = sheet(10.0, 3.6, columns=2)
    for one, variant in zip(axes, ("joint", "selection"), strict=True):
        ratios = {}
        for row in rows:
            if row["variant"] == variant and row["inputs"] >= 30:
                ratios.setdefault(row["peer"], []).append((row["ratio_alone"], row["capped"]))
        means = {
            peer: math.exp(statistics.mean(math.log(ratio) for ratio, _ in values))
            for peer, values in ratios.items()
        }
        order = sorted(means, key=means.get)
        capped = [any(stopped for _, stopped in ratios[peer]) for peer in order]
        bars = one.barh(order, [means[peer] for peer in order], color=[RED if c else BLUE for c in capped])
        labels = [f"{'>' if c else ''} {means[p]:.3g}" for p, c in zip(order, capped, strict=True)]
        one.bar_label(bars, labels, padding=3, fontsize=8)
        one.set(
            xscale="log",
            title=f"{variant}: time over ours, one row alone",
            xlim=(0.5, 20 * max(means.values())),
        )
        one.grid(visible=False)
        one.axvline(1, color="0.5", lw=1)
    figure.supxlabel(
        "geometric means; red: some runs were stopped by their cap, so that it is a lower bound", fontsize=9
    )
    return figure


def search() -> Figure:
    """What branch and bound knows while it works: incumbent and bound of one row with 64 inputs."""
    from solvers import Budget, solve
    from solvers.instances import random_problem

    problem = random_problem(1, 72, Budget.per_row(48), seed=3)
    solve(problem, time_limit=5)  # compiled before the clock matters
    seen = []
    solution = solve(problem, callback=seen.append, gap=0.0, time_limit=60)
    figure, (one,) = sheet(6.5, 3.4)
    x = [max(progress.seconds, 1e-4) for progress in seen]
    one.step(x, [p.bounds.upper for p in seen], where="post", color=RED, label="best mask so far")
    one.step(x, [p.bounds.lower for p in seen], where="post", color=BLUE, label="proven bound")
    one.axhline(solution.value, color="0.5", ls=":", lw=1)
    low = min(p.bounds.lower for p in seen if p.bounds.lower > 0)
    one.set(
        xscale="log", xlabel="seconds", ylabel="loss increase", ylim=(0.95 * low, 1.1 * seen[0].bounds.upper)
    )
    nodes = int(seen[-1].nodes or 0)
    one.set_title(f"a row of 72 inputs, 48 pruned: {nodes:,} nodes to the proof")
    one.legend(frameon=False)
    return figure


def masks() -> Figure:
    """Which pixels the hidden units of the digits network keep, by magnitude and by the joint problem."""
    import cbs

    model, digits = cbs.trained_digits_mlp()
    results = cbs.compare(
        model, digits.train, test=digits.test, methods=["magnitude", "joint"], sparsities=[0.75], scope="row"
    )
    figure = Figure(figsize=(9.0, 4.6), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    dense = np.abs(model[0].weight.detach().numpy())
    for half, result in zip(figure.subfigures(2, 1), results, strict=True):
        mask = result.masks["0"].numpy()
        moved = result.permanent()[0].weight.detach().numpy()
        for unit, one in enumerate(half.subplots(2, 12).ravel()):
            one.imshow(dense[unit].reshape(8, 8), cmap="Greys", alpha=0.35)
            shown = np.where(mask[unit], np.nan, moved[unit]).reshape(8, 8)
            one.imshow(shown, cmap="RdBu", vmin=-0.8, vmax=0.8)
            one.axis("off")
        words = f"{100 * result.test_after.accuracy:.1f}% accuracy, gap {100 * result.gap:.1f}%"
        half.suptitle(f"{result.method}: {words}", fontsize=11)
    return figure


def curves() -> Figure:
    """How much greedy elimination costs above the proven optimum, at every count, rows of a layer."""
    import torch

    import cbs
    from solvers import Budget, SubsetProblem, curve, solve

    model, digits = cbs.trained_digits_mlp()
    with torch.no_grad():
        z = model[:2](digits.train.inputs).double().numpy()
    H = z.T @ z / len(z)
    H += 1e-2 * np.trace(H) / len(H) * np.eye(len(H))
    W = model[2].weight.detach().double().numpy()
    n = W.shape[1]
    problem = SubsetProblem(W, H, Budget.per_row(n // 2))
    path = curve(problem)
    figure, (one,) = sheet(6.5, 3.4)
    counts = list(range(1, n - 1))
    excess = []
    for count in counts:
        greedy = solve(SubsetProblem(W, H, Budget.per_row(count)), "greedy")
        excess.append(100 * (greedy.value / path.values[:, count].sum() - 1))
    one.plot(counts, excess, "o-", color=GREEN, ms=4)
    one.set(xlabel=f"weights pruned of {n} in every row", ylabel="above the optimum, %", ylim=(0, None))
    one.set_title("greedy elimination, second layer of the digits network")
    return figure


FIGURES = {one.__name__: one for one in (bound, accuracy, solvers, search, masks, curves)}


def main() -> None:
    for name in sys.argv[1:] or FIGURES:
        if name not in FIGURES:
            raise SystemExit(f"figure {name!r} is none of {', '.join(FIGURES)}")
        FIGURES[name]().savefig(HERE / "results" / f"{name}.png")
        print(name)


if __name__ == "__main__":
    main()
