"""How far from optimal are the masks of whole layers, at most? See README.md."""

import sys
from pathlib import Path
from typing import Any

from solvers import SubsetProblem, solve
from solvers.runtime.parallel import workers

sys.path.insert(0, str(Path(__file__).parent.parent / "layers"))
from posed import SEED, budget_of, layers, synthetic

MASK_SECONDS = 5.0
"""That the portfolio may take for the mask that a bound is held against."""


def bound(network: str, layer: str, variant: str, budget: str, limit: float | None = None) -> dict[str, Any]:
    """A mask of a layer and a bound that is held against it.

    Args:
        network: one of `../layers`, or `synthetic`, whose `layer` is `rows x inputs`.
        layer: its name.
        variant: joint, or selection.
        budget: see `budget_of`.
        limit: seconds that the bound is raised for; None for one split that all rows share.
    """
    W, H = synthetic(*map(int, layer.split("x"))) if network == "synthetic" else layers(network)[layer]
    m, n = W.shape
    problem = SubsetProblem(W, H, budget_of(budget, m, n), refit=variant == "joint")
    mask = solve(problem, "portfolio", time_limit=MASK_SECONDS, seed=SEED)
    found = solve(problem, "relaxation", warm_start=mask.mask, time_limit=limit)
    return {
        "m": m, "n": n, "value": found.value, "bound": found.bound, "gap": found.gap,
        "seconds": found.seconds, "mask_seconds": mask.seconds, "cores": workers(),
    }  # fmt: skip
