"""Cores of their own for the processes of one machine (processor affinity).

Every process that runs calls takes a lock on each core it wants, in a folder among the temporary files.
The locks are the kernel's, so they hold between pools, drivers and cluster workers of one user, and are
free again however a process ends. Where not enough cores are free, a process runs unpinned.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_held: list[int] = []
"""Descriptors of the locks, open as long as this process lives."""


def take(count: int, folder: Path | None = None) -> list[int] | None:
    """Pin this process to `count` cores that no other such process has; None if there are not enough.

    Args:
        count: cores wanted.
        folder: of the locks.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    if count >= len(cores):
        return None
    import fcntl

    folder = folder or Path(tempfile.gettempdir(), f"solvers-cores-{os.getuid()}")
    taken: dict[int, int] = {}
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for core in cores:
            file = os.open(folder / str(core), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(file)
                continue
            taken[core] = file
            if len(taken) == count:
                os.sched_setaffinity(0, taken)
                _held.extend(taken.values())
                return list(taken)
    except OSError:  # no room for locks, or a folder of somebody else: unpinned
        pass
    for file in taken.values():
        os.close(file)
    return None
