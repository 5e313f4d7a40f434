"""At equal time, whose mask of a layer costs least? See README.md."""

from typing import Any

from posed import SEED, budget_of, layers

from solvers import SubsetProblem, solve
from solvers.runtime.parallel import workers

OURS = "portfolio"
LEAST = 0.1
"""Seconds that ours may take at least; below, clocks and noise decide."""


def equal_time(network: str, layer: str, budget: str, solver: str) -> dict[str, Any]:
    """A solver's value and seconds, and ours in as many seconds."""
    W, H = layers(network)[layer]
    m, n = W.shape
    limits = budget_of(budget, m, n)
    hessian = SubsetProblem(W, H, limits).hessian
    for name in (solver, OURS):
        solve(SubsetProblem(W[:2], hessian, limits), name, time_limit=1.0)  # compile and load
    theirs = solve(SubsetProblem(W, hessian, limits), solver)  # each problem remembers no other's masks
    limit = max(theirs.seconds, LEAST)
    ours = solve(SubsetProblem(W, hessian, limits), OURS, time_limit=limit, seed=SEED)
    return {
        "m": m, "n": n, "value": theirs.value, "seconds": theirs.seconds, "our_value": ours.value,
        "our_seconds": ours.seconds, "cores": workers(),
    }  # fmt: skip
