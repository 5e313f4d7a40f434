"""What a run depends on beside its settings: versions, machine, threads, and which solvers are installed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from functools import cache
from typing import Any

PACKAGES = ("combinatorial-brain-surgeon", "torch", "numpy", "scipy", "numba")
"""That decide what is computed."""
WHEELS = (
    "clarabel", "coptpy", "cplex", "cvxpy", "gurobipy", "highspy", "ortools", "pyscipopt", "python-flint",
    "safetensors", "scikit-learn", "torch-pruning", "xpress",
)  # fmt: skip
"""Solvers and helpers, which are told where they are installed."""


@cache
def environment() -> dict[str, Any]:
    """Versions of Python and packages, machine, and threads, ready for JSON."""
    import torch

    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **versions(PACKAGES),
        "wheels": versions(WHEELS),
    }


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """Versions of packages, of those that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
