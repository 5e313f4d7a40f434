"""Masks of a layer of thousands of inputs: error, seconds, memory. See README.md."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from solvers import Budget, SubsetProblem, solve
from solvers.runtime.parallel import workers

sys.path.insert(0, str(Path(__file__).parent.parent / "layers"))
from posed import SEED, budget_of, synthetic


def mask(
    m: int, n: int, budget: str, solver: str, limit: float | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """One solver on one budget of a made-up layer `m x n`, in `limit` seconds if it is given one."""
    W, H = synthetic(m, n)
    problem = SubsetProblem(W, H, budget_of(budget, m, n))
    few = SubsetProblem(W[:2, :256], np.eye(256), Budget.per_row(128))
    solve(few, solver, time_limit=1.0, device=device)  # compile and load
    found = solve(problem, solver, time_limit=limit, seed=SEED, device=device)
    return {"value": found.value, "seconds": found.seconds, "device": device, "cores": workers()}
