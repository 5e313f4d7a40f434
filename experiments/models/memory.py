"""The most memory that a pruning of MiniLM takes, method by method: see README.md."""

import time
from typing import Any

from cases import minilm

import cbs

ROWS: dict[str, dict[str, Any]] = {
    "wanda": {"method": "wanda"},
    "sparsegpt": {"method": "sparsegpt", "scope": "layer"},
    "obc": {"method": "obc", "scope": "layer", "time_limit": 120},
    "joint": {"method": "joint", "time_limit": 120},
    "joint, by layer, sequential": {
        "method": "joint", "scope": "layer", "pipeline": "sequential", "time_limit": 120,
    },
    "cbs-s": {"method": "cbs-s"},
}  # fmt: skip


def held(name: str) -> float:
    """GiB, `VmRSS` now or `VmHWM` at most."""
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = [line for line in file if line.startswith(name + ":")]
    return int(line.split()[1]) / 2**20


def pruning(by: str) -> dict[str, Any]:
    """GiB that the process holds before a pruning and at most, and seconds; the store has its peak in MiB."""
    case = minilm(None)
    model = case.build()
    before, began = held("VmRSS"), time.perf_counter()
    found: dict[str, Any] = {"before": round(before, 2)}
    try:
        result = cbs.prune(model, case.data, sparsity=0.5, certify=False, layers=case.layers, **ROWS[by])
    except ValueError as error:
        found["refused"] = str(error)
    else:
        found |= dict(result.history[0].stats["memory"])
    return {**found, "most": round(held("VmHWM"), 2), "seconds": round(time.perf_counter() - began)}
