"""What a pruning leaves behind: tables, a plot, and the run folder with weights and masks."""

from typing import TYPE_CHECKING

from solvers.runtime.lazy import export as _export

if TYPE_CHECKING:
    from cbs.report.closing import best, next_steps
    from cbs.report.folder import RunFolder, difference, read_report, report
    from cbs.report.identity import identity
    from cbs.report.layers import layer_lines, shares
    from cbs.report.layers_plot import draw_layers
    from cbs.report.plot import draw
    from cbs.report.stages import staged, stages_markdown, stages_terminal
    from cbs.report.stages_plot import draw_stages
    from cbs.report.tables import COLUMNS, cells, markdown, terminal

__all__ = [
    "COLUMNS", "RunFolder", "best", "cells", "difference", "draw", "draw_layers", "draw_stages", "identity",
    "layer_lines", "markdown", "next_steps", "read_report", "report", "shares", "staged", "stages_markdown",
    "stages_terminal", "terminal",
]  # fmt: skip

_export(
    __name__,
    {
        "closing": ["best", "next_steps"],
        "folder": ["RunFolder", "difference", "read_report", "report"],
        "identity": ["identity"],
        "layers": ["layer_lines", "shares"],
        "layers_plot": ["draw_layers"],
        "plot": ["draw"],
        "stages": ["staged", "stages_markdown", "stages_terminal"],
        "stages_plot": ["draw_stages"],
        "tables": ["COLUMNS", "cells", "markdown", "terminal"],
    },
)
