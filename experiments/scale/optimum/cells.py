"""How far from the proven optimum of small rows heuristics end: see README.md."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbs.curvature import Gram
from cbs.network.network import Network
from cbs.zoo import trained
from solvers import Budget, Solution, SubsetProblem, solve
from solvers.instances import random_problem
from solvers.runtime.parallel import workers

IMAGES, DAMPING = 10_000, 1e-2
GAP, SECONDS = 1e-6, 300.0
"""To which optima are proven, and how long for; rows left open are left out."""
SOLVERS = ("magnitude", "randomized-magnitude", "greedy", "local-search", "tabu")
LIMITED = "branch-and-bound"
"""Compared as well, within the time that the last of them took."""


def heuristics(network: str, layer: str, sparsity: float) -> dict[str, Any]:
    """Every heuristic on all rows of a layer, held against each row's proven optimum."""
    problem = posed(network, layer, sparsity)
    m, n = problem.m, len(problem.prunable)  # without a bias
    best = solve(problem, "branch-and-bound", gap=GAP, time_limit=SECONDS)
    assert best.rows is not None
    optima, proven = problem.row_values(best.mask), best.rows.proven
    whole = SubsetProblem(problem.W, problem.hessian, Budget.per_row(n), movable=problem.movable)
    pruned = np.zeros(problem.W.shape, dtype=bool)
    pruned[:, problem.prunable] = True
    sizes = whole.row_values(pruned)
    limit, found = None, []
    for name in (*SOLVERS, LIMITED):
        solution = solve(problem, name, time_limit=limit if name == LIMITED else None)
        limit = solution.seconds
        excess = excesses(problem, solution, optima, sizes)[proven]
        found.append({"solver": name, "seconds": solution.seconds, "excess": excess.tolist()})
    return {
        "m": m, "n": n, "value": best.value, "bound": best.bound, "gap": best.gap, "seconds": best.seconds,
        "proven": int(proven.sum()), "rows_at_a_time": workers(), "heuristics": found,
    }  # fmt: skip


@lru_cache(maxsize=1)
def layers(network: str) -> dict[str, Any]:
    """Layer objectives of a network by name; every solver is compiled before the first is timed."""
    for name in (*SOLVERS, LIMITED):
        solve(random_problem(2, 12, Budget.per_row(6), seed=0), name)
    found = trained(network)
    return {
        one.name: one for one in Network(found.model, found.train.choose(IMAGES), damping=DAMPING)(Gram())
    }


def posed(network: str, layer: str, sparsity: float) -> SubsetProblem:
    """All rows of a layer, each with a budget of its own."""
    objective = layers(network)[layer]
    n = objective.dense[0].W.shape[1]
    return objective.problem(Budget.per_row(round(sparsity * n)))


def excesses(
    problem: SubsetProblem, solution: Solution, optima: NDArray[np.float64], sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Every row's value over its optimum, less 1; zero where rounding hides the difference."""
    over = problem.row_values(solution.mask) - optima
    return np.where(over > 1e-12 * sizes, over / np.maximum(optima, 1e-300), 0.0)
