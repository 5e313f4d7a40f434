"""What results depend on beside their settings: the version of the code, and the machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from functools import cache
from pathlib import Path


@cache
def version() -> str:
    """The package's version, by which cells are told apart."""
    return importlib.metadata.version("combinatorial-brain-surgeon")


@cache
def revision() -> str:
    """A digest of the source of `cbs` and `solvers`, which is kept with a cell and no part of its key."""
    import cbs
    import solvers

    digest = hashlib.sha256()
    for package in (solvers, cbs):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@cache
def machine() -> str:
    """The processor's model, and how many of its cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()
