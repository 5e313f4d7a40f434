"""A study or a pruning run as one HTML page with interactive figures and tables.

`write` makes the page of a table of cells; `figures` says which figures there are.
"""

from typing import TYPE_CHECKING

from solvers.runtime.lazy import export as _export

if TYPE_CHECKING:
    from cbs.report.page.figure import Evidence, Figure
    from cbs.report.page.figures import figures
    from cbs.report.page.files import write_figures
    from cbs.report.page.sources import Source, read
    from cbs.report.page.write import Report, compose, write

__all__ = ["Evidence", "Figure", "Report", "Source", "compose", "figures", "read", "write", "write_figures"]

_export(
    __name__,
    {
        "figure": ["Evidence", "Figure"],
        "figures": ["figures"],
        "files": ["write_figures"],
        "sources": ["Source", "read"],
        "write": ["Report", "compose", "write"],
    },
)
