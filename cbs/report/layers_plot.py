"""Sparsity and certified gap of every layer: where a budget went, and what is not proven."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cbs.report.layers import Module, modules
from cbs.report.plot import COLOURS, MARKERS
from cbs.result import PruneResult

MOST = 48
"""Layers that are drawn: the largest ones, in the network's order."""


def draw_layers(results: Sequence[PruneResult]) -> Figure:
    """Draw results of one network in two panels, a line a layer, the network's first at the top.

    Args:
        results: at least one; of different sparsities, as a rule.

    Returns:
        The figure, to be saved with `savefig`.
    """
    names = _largest([modules(result) for result in results])
    figure = Figure(figsize=(11, 1.6 + 0.24 * len(names)), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    sparsity, gap = figure.subplots(1, 2, sharey=True)
    places = {name: i for i, name in enumerate(names)}
    for rank, result in enumerate(results):
        drawn = [module for module in modules(result) if module.name in places]
        proven = [module for module in drawn if module.gap is not None]
        style = {
            "linestyle": "none", "marker": MARKERS[rank % len(MARKERS)], "markersize": 6,
            "color": COLOURS[rank % len(COLOURS)], "label": f"{result.method}, {result.share}",
        }  # fmt: skip
        for axes, shown, values in (
            (sparsity, drawn, [module.sparsity for module in drawn]),
            (gap, proven, [module.gap for module in proven]),
        ):
            axes.plot(values, [places[module.name] for module in shown], **style)
    for axes, title in ((sparsity, "sparsity"), (gap, "certified gap, 0% is proven optimal")):
        axes.set_title(title)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlim(-0.03, 1.03)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    sparsity.set_yticks(range(len(names)), [name or "(the network)" for name in names], fontsize=8)
    sparsity.set_ylim(len(names) - 0.5, -0.5)
    figure.legend(*sparsity.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _largest(found: Sequence[Sequence[Module]]) -> list[str]:
    """Names of the largest modules, in the network's order."""
    sizes = {module.name: module.size for modules in found for module in modules}
    kept = set(sorted(sizes, key=lambda name: -sizes[name])[:MOST])
    return [name for name in sizes if name in kept]
