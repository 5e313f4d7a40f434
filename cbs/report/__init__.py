"""What a pruning leaves behind: tables, a plot, and the run folder with weights and masks."""

from typing import TYPE_CHECKING

from solvers.lazy import export as _export

if TYPE_CHECKING:
    from cbs.report.folder import RunFolder, report, write
    from cbs.report.plot import draw
    from cbs.report.tables import COLUMNS, cells, markdown, terminal

__all__ = ["COLUMNS", "RunFolder", "cells", "draw", "markdown", "report", "terminal", "write"]

_export(
    __name__,
    {
        "folder": ["RunFolder", "report", "write"],
        "plot": ["draw"],
        "tables": ["COLUMNS", "cells", "markdown", "terminal"],
    },
)
