"""What a pruning leaves behind: tables, a plot, and the run folder with weights and masks."""

from typing import TYPE_CHECKING

from solvers.runtime.lazy import export as _export

if TYPE_CHECKING:
    from cbs.report.closing import next_steps
    from cbs.report.folder import RunFolder, difference, read_report, report
    from cbs.report.identity import identity
    from cbs.report.plot import draw
    from cbs.report.tables import COLUMNS, cells, markdown, terminal

__all__ = [
    "COLUMNS", "RunFolder", "cells", "difference", "draw", "identity", "markdown", "next_steps",
    "read_report", "report", "terminal",
]  # fmt: skip

_export(
    __name__,
    {
        "closing": ["next_steps"],
        "folder": ["RunFolder", "difference", "read_report", "report"],
        "identity": ["identity"],
        "plot": ["draw"],
        "tables": ["COLUMNS", "cells", "markdown", "terminal"],
    },
)
