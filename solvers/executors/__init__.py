"""Work on processes of this machine, on a Dask cluster, on Ray or on Slurm, by one setting.

`executor("processes:4")` is a `concurrent.futures.Executor`, and so is one of a cluster.
"""

from typing import TYPE_CHECKING

from solvers.runtime.lazy import export as _export

if TYPE_CHECKING:
    from solvers.executors.door import borrowed, executor
    from solvers.executors.failures import Ended, MemoryLimitExceeded, ProcessDied, TimeLimitExceeded
    from solvers.executors.message import Measured

__all__ = [
    "Ended", "Measured", "MemoryLimitExceeded", "ProcessDied", "TimeLimitExceeded", "borrowed", "executor",
]  # fmt: skip

_export(
    __name__,
    {
        "door": ["borrowed", "executor"],
        "failures": ["Ended", "MemoryLimitExceeded", "ProcessDied", "TimeLimitExceeded"],
        "message": ["Measured"],
    },
)
