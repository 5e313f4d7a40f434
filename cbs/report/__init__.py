"""What a pruning leaves behind: tables, a plot, and the run folder with weights and masks."""

from typing import TYPE_CHECKING

from solvers.runtime.lazy import export as _export

if TYPE_CHECKING:
    from cbs.report.closing import next_steps
    from cbs.report.folder import RunFolder, difference, read_report, report
    from cbs.report.identity import identity
    from cbs.report.plot import draw
    from cbs.report.stages import staged, stages_markdown, stages_terminal
    from cbs.report.stages_plot import draw_stages
    from cbs.report.tables import COLUMNS, cells, markdown, terminal

__all__ = [
    "COLUMNS", "RunFolder", "cells", "difference", "draw", "draw_stages", "identity",
    "markdown", "next_steps", "read_report", "report", "staged", "stages_markdown", "stages_terminal",
    "terminal",
]  # fmt: skip

_export(
    __name__,
    {
        "closing": ["next_steps"],
        "folder": ["RunFolder", "difference", "read_report", "report"],
        "identity": ["identity"],
        "plot": ["draw"],
        "stages": ["staged", "stages_markdown", "stages_terminal"],
        "stages_plot": ["draw_stages"],
        "tables": ["COLUMNS", "cells", "markdown", "terminal"],
    },
)
