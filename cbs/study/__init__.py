"""Studies: grids of problems and solvers, or of networks and methods, run once and kept in one table."""

from typing import TYPE_CHECKING

from solvers.runtime.lazy import export as _export

if TYPE_CHECKING:
    from cbs.study.cell import Answer, Cell
    from cbs.study.driver import run
    from cbs.study.frames import read
    from cbs.study.store import Store
    from cbs.study.studyfile import Study

__all__ = ["Answer", "Cell", "Store", "Study", "read", "run"]

_export(
    __name__,
    {
        "cell": ["Answer", "Cell"],
        "driver": ["run"],
        "frames": ["read"],
        "store": ["Store"],
        "studyfile": ["Study"],
    },
)
