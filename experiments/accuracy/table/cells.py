"""One setting for all networks: see ../README.md."""

import os
import sys
import time
from pathlib import Path

import cbs

sys.path.insert(0, str(Path(__file__).parents[1]))

from cases import case

SETTING = {"refit": "network", "pipeline": "sequential", "certify": False}
"""The same for every network; all else is the defaults, but for the limit."""


def prune(network: str, labels: bool, sparsity: float, images: int, limit: float, seed: int):
    """One pruning: with `labels` or without, on so many images, by the clock within a limit of seconds."""
    found = case(network, seed)
    began, cpu = time.perf_counter(), time.process_time()
    result = cbs.prune(
        found.model, found.calibration(images), sparsity=sparsity, layers=found.layers, seed=seed,
        labels=labels, time_limit=limit, test=found.test, **SETTING,
    )  # fmt: skip
    spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    return {
        **found.measured(result.model), **spent, "dense_accuracy": result.test_before.accuracy,
        "pruned_accuracy": result.history[-1].test_pruned.accuracy, "status": result.status,
        "cores_busy": round(os.getloadavg()[0], 1),
    }  # fmt: skip
