"""Masks chosen anew by the curvature of the whole network, some of its moves switched off: see README.md."""

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import cbs

sys.path.insert(0, str(Path(__file__).parents[1]))

from cases import case

MOVES = {
    "the method's own masks": None,
    "down": {"cbs.schedule.reselecting.ROUNDS": 0},
    "down, returns": {"cbs.reselection.rounds.SWING": 0.0},
    "down, returns, swings": {},
}
"""What is switched off of a re-selection; None for all of it."""


def prune(network: str, moves: str, sparsity: float, images: int, seed: int):
    """One pruning with some moves of a re-selection."""
    found, off = case(network, seed), MOVES[moves]
    with ExitStack() as patched:
        for name, value in (off or {}).items():
            patched.enter_context(patch(name, value))
        cpu, clock = time.process_time(), time.perf_counter()
        result = cbs.prune(
            found.model, found.calibration(images), sparsity=sparsity, seed=seed, reselect=off is not None,
            refit="network", solver="greedy", certify=False,
        )  # fmt: skip
    return {
        "cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - clock,
        "rounds": len((result.history[-1].reselection or {}).get("rounds", ())),
        "dense_accuracy": found.measured(found.model)["accuracy"], **found.measured(result.model),
    }  # fmt: skip
