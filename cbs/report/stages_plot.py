"""What became of a network stage by stage: accuracy, divergence, sparsity and seconds, drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cbs.report.plot import COLOURS, MARKERS
from cbs.report.stages import accuracy_of, staged
from cbs.result import PruneResult

PANELS = ("accuracy", "divergence", "sparsity", "seconds")


def draw_stages(results: Sequence[PruneResult]) -> Figure:
    """Draw what became of a network stage by stage: accuracy, divergence, sparsity and seconds.

    Args:
        results: at least one that came in several stages; others are left out. Stage 0 is the dense network.

    Returns:
        The figure, to be saved with `savefig`.
    """
    results = staged(results)
    figure = Figure(figsize=(16, 4.4 + 0.16 * len(results)), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    panels = dict(zip(PANELS, figure.subplots(1, len(PANELS)), strict=True))
    for rank, result in enumerate(results):
        dense = (result.test_before or result.before).accuracy
        history = result.history
        lines = {
            "accuracy": [dense, *map(accuracy_of, history)],
            "divergence": [None, *(stage.refitted_divergence for stage in history)],
            "sparsity": [None, *(stage.sparsity for stage in history)],
            "seconds": [0.0, *np.cumsum([stage.seconds for stage in history])],
        }
        for name, values in lines.items():
            y = [np.nan if value is None else value for value in values]
            panels[name].plot(
                range(len(y)), y, color=COLOURS[rank % len(COLOURS)], marker=MARKERS[rank % len(MARKERS)],
                markersize=5, linewidth=1.4, label=f"{result.method} at {100 * result.asked:g}%",
            )  # fmt: skip
    _dress(panels, results)
    return figure


def _dress(panels: dict[str, Axes], results: Sequence[PruneResult]) -> None:
    on = "test" if all(result.test_after for result in results) else "calibration"
    titles = {
        "accuracy": f"accuracy on {on} data", "divergence": "divergence from the dense outputs, refitted",
        "sparsity": "sparsity", "seconds": "seconds so far",
    }  # fmt: skip
    for name, axes in panels.items():
        axes.set_title(titles[name])
        axes.set_xlabel("stage")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    for name in ("accuracy", "sparsity"):
        panels[name].yaxis.set_major_formatter(PercentFormatter(1.0))
    known = np.concatenate([line.get_ydata() for line in panels["divergence"].lines])
    if (np.isfinite(known) & (known > 0)).any():
        panels["divergence"].set_yscale("log")
    else:
        panels["divergence"].text(
            0.5, 0.5, "no network refit", transform=panels["divergence"].transAxes, ha="center", color="grey"
        )
    panels["seconds"].legend(fontsize=8, frameon=False)
