"""Figures of a diagnosis: damage and error layer by layer, sensitivity curves, stability of masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from cbs.report.plot import COLOURS, MARKERS

if TYPE_CHECKING:
    from cbs.diagnosis.damage import Damage
    from cbs.diagnosis.sensitivity import Sensitivity
    from cbs.diagnosis.stability import Stability
    from cbs.diagnosis.trace import Trace

NAMED = 60
"""Most layers whose names stand beneath an axis."""


def draw_damage(damage: Damage) -> Figure:
    """What each layer costs alone and up to it, and its cost alone against its objective."""
    figure, (costs, against) = _panels(2, len(damage.layers))
    names = [layer.name for layer in damage.layers]
    x = np.arange(len(names))
    costs.bar(
        x, [layer.alone.loss_increase for layer in damage.layers], color=COLOURS[0], label="this layer alone"
    )
    costs.plot(
        x, [layer.upto.loss_increase for layer in damage.layers], color=COLOURS[1], marker="o", markersize=4,
        label="all layers up to it",
    )  # fmt: skip
    costs.plot(
        x, [layer.without.loss_increase for layer in damage.layers], color=COLOURS[2], linestyle=":",
        marker="s", markersize=3, label="all layers but it",
    )  # fmt: skip
    costs.axhline(0.0, color="grey", linewidth=0.8)
    _name(costs, names)
    costs.set_title(f"increase of the {damage.measure}, layer by layer")
    costs.legend(frameon=False, fontsize=9)
    known = [layer for layer in damage.layers if layer.objective and layer.alone.loss_increase > 0]
    against.set_title("cost alone against the layer's objective")
    against.set_xlabel("half the mean squared change of its output")
    if known:
        against.scatter(
            [layer.objective or 0.0 for layer in known], [layer.alone.loss_increase for layer in known],
            color=COLOURS[0], s=18,
        )  # fmt: skip
        for layer in known:
            against.annotate(
                layer.name, (layer.objective or 0.0, layer.alone.loss_increase), fontsize=7, xytext=(3, 2),
                textcoords="offset points",
            )  # fmt: skip
        for axis, scale in ((against.xaxis, against.set_xscale), (against.yaxis, against.set_yscale)):
            scale("log")
            axis.set_minor_formatter(NullFormatter())
    return figure


def draw_trace(trace: Trace) -> Figure:
    """The relative error of every module's output, in running order."""
    figure, (axes,) = _panels(1, len(trace.modules))
    errors = np.array([module.error for module in trace.modules], dtype=float)
    finite = np.where(np.isfinite(errors) & (errors > 0), errors, np.nan)
    x = np.arange(len(errors))
    axes.plot(x, finite, color=COLOURS[0], linewidth=1.2)
    differs = np.array([module.differs for module in trace.modules], dtype=bool)
    for mine, colour, label in (
        (differs, COLOURS[1], "pruned or moved"),
        (~differs, COLOURS[0], "as it was"),
    ):
        axes.scatter(x[mine], finite[mine], color=colour, s=18, label=label, zorder=3)
    axes.axhline(1.0, color="black", linestyle="--", linewidth=1)
    if np.isfinite(finite).any():
        axes.set_yscale("log")
    _name(axes, [module.name for module in trace.modules])
    axes.set_title("relative error of the output")
    axes.legend(frameon=False, fontsize=9)
    return figure


def draw_sensitivity(sensitivity: Sensitivity) -> Figure:
    """A line a layer: what it costs alone at every sparsity."""
    figure, (axes,) = _panels(1, 1)
    for rank, layer in enumerate(sensitivity.layers):
        axes.plot(
            sensitivity.sparsities, [effect.loss_increase for effect in layer.effects],
            color=COLOURS[rank % len(COLOURS)], marker=MARKERS[rank % len(MARKERS)], markersize=4,
            linewidth=1.2, label=layer.name,
        )  # fmt: skip
    costs = [effect.loss_increase for layer in sensitivity.layers for effect in layer.effects]
    sizes = [abs(cost) for cost in costs if cost]
    if sizes:
        axes.set_yscale("symlog", linthresh=max(min(sizes), 1e-3 * max(sizes)))
    axes.set_xlabel("sparsity of the layer")
    axes.set_title(f"cost of each layer alone, {sensitivity.method}")
    axes.legend(frameon=False, fontsize=7, ncols=1 + len(sensitivity.layers) // 12)
    return figure


def draw_stability(stability: Stability) -> Figure:
    """The share of entries that change, by layer and by the number of samples."""
    figure, (layers, sizes) = _panels(2, len(stability.layers))
    names = [layer.name for layer in stability.layers]
    x = np.arange(len(names))
    layers.bar(x, [100 * layer.changed for layer in stability.layers], color=COLOURS[0])
    chance = [200 * layer.sparsity * (1 - layer.sparsity) for layer in stability.layers]
    layers.plot(x, chance, color="grey", linestyle=":", marker="_", label="masks at random")
    layers.set_yscale("symlog", linthresh=0.1)
    layers.legend(frameon=False, fontsize=9)
    layers.set_title("% of entries chosen otherwise on a bootstrap sample")
    _name(layers, names)
    sizes.set_title("% of entries that differ between two draws")
    sizes.set_xlabel("samples")
    draw_sizes(sizes, [stability])
    return figure


def draw_sizes(axes: Axes, stabilities: Sequence[Stability]) -> None:
    """A line a method: how far two draws of so many samples differ."""
    for rank, each in enumerate(stabilities):
        points = [point for point in each.sizes if point.changed > 0]
        if points:
            axes.plot(
                [point.samples for point in points], [100 * point.changed for point in points],
                color=COLOURS[rank % len(COLOURS)], marker=MARKERS[rank % len(MARKERS)], label=each.method,
            )  # fmt: skip
            axes.set_xscale("log")
            axes.set_yscale("log")
    if axes.lines:
        axes.legend(frameon=False, fontsize=9)


def _panels(count: int, layers: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(max(6.5, min(14.0, 0.3 * layers)) * count, 4.8), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, count, i + 1) for i in range(count)]
    for each in axes:
        each.grid(alpha=0.25, linewidth=0.6)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _name(axes: Axes, names: Sequence[str]) -> None:
    """Names beneath an axis, as many as there is room for."""
    every = -(-len(names) // NAMED)
    axes.set_xticks(range(0, len(names), every), names[::every], rotation=90, fontsize=7)
