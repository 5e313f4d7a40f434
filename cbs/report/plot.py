"""Accuracy, loss increase and layer objective against sparsity, over the certified lower bound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator, PercentFormatter

from cbs.result import PruneResult

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#6A51A3", "#8C6D31", "#7F7F7F",
)  # fmt: skip
"""Okabe and Ito's palette, which colour-blind readers can tell apart, and three more."""
MARKERS = "os^DvPX<>*"
SPACING = 0.055
"""Least distance of two labels, as a fraction of the panel's height."""


def draw(results: Sequence[PruneResult]) -> Figure:
    """Draw a comparison in three panels over the same sparsities.

    Args:
        results: at least one; accuracy is that on test data if there is any.

    Returns:
        The figure, to be saved with `savefig`.
    """
    methods = list(dict.fromkeys(result.method for result in results))
    taller = max(1.0, SPACING * (len(methods) + 2))  # for the labels of all, and of two bounds
    figure = Figure(figsize=(14, 4.8 * taller), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    accuracy, loss, objective = figure.subplots(1, 3)
    lines = []
    for rank, method in enumerate(methods):
        mine = sorted((r for r in results if r.method == method), key=lambda r: r.asked)
        x = [r.asked for r in mine]
        for axes, y in (
            (accuracy, [_accuracy(r) for r in mine]),
            (loss, [r.loss_increase for r in mine]),
            (objective, [r.value for r in mine]),
        ):
            (line,) = axes.plot(
                x, y, color=COLOURS[rank % len(COLOURS)], marker=MARKERS[rank % len(MARKERS)], markersize=5,
                linewidth=1.4, label=method,
            )  # fmt: skip
        lines.append(line)
    bound = _bound(objective, results)
    _dress(accuracy, loss, objective, results)
    figure.draw_without_rendering()
    _label(objective, [*bound, *lines], SPACING / taller)
    return figure


def _accuracy(result: PruneResult) -> float:
    accuracy = (result.test_after or result.after).accuracy
    return np.nan if accuracy is None else accuracy


def _bound(axes: Axes, results: Sequence[PruneResult]) -> list[Line2D]:
    """The best bound at every sparsity, and the region below it, where no mask lies.

    Fractions of the weights and of the neurons are different budgets: each has bounds of its own.
    """
    kinds = {"weights": [r for r in results if not r.neurons], "neurons": [r for r in results if r.neurons]}
    lines = []
    for kind, mine in kinds.items():
        best: dict[float, float] = {}
        for result in mine:
            if result.bound is not None:
                best[result.asked] = max(result.bound, best.get(result.asked, 0.0))
        if best:
            x = sorted(best)
            y = [best[s] for s in x]
            name = "certified lower bound" + f" of {kind}" * all(kinds.values())
            style = "--" if kind == "weights" else ":"
            (line,) = axes.plot(x, y, color="black", linestyle=style, linewidth=1.4, label=name)
            axes.fill_between(x, y, 0.0, color="black", alpha=0.08, linewidth=0)
            lines.append(line)
    return lines


def _dress(accuracy: Axes, loss: Axes, objective: Axes, results: Sequence[PruneResult]) -> None:
    first = results[0]
    dense = first.test_before or first.before
    data = "test" if first.test_before else "calibration"
    accuracy.set_title(f"accuracy on {data} data")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    if dense.accuracy is not None:
        accuracy.axhline(dense.accuracy, color="grey", linestyle=":", linewidth=1)
        accuracy.annotate(
            "dense", (1, dense.accuracy), xycoords=("axes fraction", "data"), xytext=(-3, 3),
            textcoords="offset points", ha="right", color="grey", fontsize=9,
        )  # fmt: skip
    loss.set_title("loss increase on calibration data")
    _scale(loss, [r.loss_increase for r in results])
    objective.set_title("scaled layer objectives" if first.request.pooled else "sum of layer objectives")
    _scale(objective, [r.value for r in results] + [r.bound for r in results if r.bound])
    asked = sorted({r.asked for r in results})
    for axes in (accuracy, loss, objective):
        axes.set_xlabel("sparsity")
        axes.xaxis.set_major_locator(FixedLocator(asked))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda x, _: f"{100 * x:g}%")
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis, linear around zero if some values are not positive."""
    sizes = [abs(v) for v in values if v and np.isfinite(v)]
    if not sizes:
        return
    if min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(
            LogLocator(subs=(1.0, 2.0, 5.0) if max(sizes) < 1e3 * min(sizes) else (1.0,))
        )
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(min(sizes) / 1.8, max(sizes) * 1.8)
    else:
        axes.set_yscale("symlog", linthresh=max(min(sizes), 1e-3 * max(sizes)))
        axes.axhline(0.0, color="grey", linewidth=0.8)


def _label(axes: Axes, lines: Sequence[Line2D], spacing: float) -> None:
    """Name every line at its right end, labels pushed apart and joined to their lines."""
    to_axes = (axes.transData + axes.transAxes.inverted()).transform
    ends = sorted(
        ((*to_axes(np.asarray(line.get_xydata())[-1]), line) for line in lines), key=lambda end: end[1]
    )
    heights = np.array([end[1] for end in ends])
    for _ in range(20 * len(heights)):
        for i in range(1, len(heights)):
            lack = spacing - (heights[i] - heights[i - 1])
            if lack > 1e-6:
                heights[i - 1 : i + 1] += (-lack / 2, lack / 2)
        heights = heights.clip(0.0, 1.0 + spacing)
    for (x, y, line), height in zip(ends, heights, strict=True):
        axes.annotate(
            str(line.get_label()), (x, y), xycoords="axes fraction", xytext=(1.07, height),
            textcoords="axes fraction", va="center", fontsize=9, color=line.get_color(),
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.6, "relpos": (0.0, 0.5)},
        )  # fmt: skip
