"""What a pruning leaves behind: tables, a plot, and the run folder with weights and masks."""

from cbs.report.folder import RunFolder, report, write
from cbs.report.plot import draw
from cbs.report.tables import COLUMNS, cells, markdown, terminal

__all__ = ["COLUMNS", "RunFolder", "cells", "draw", "markdown", "report", "terminal", "write"]
