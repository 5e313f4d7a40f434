"""Our branch and bound on whole layers, and its two engines side by side: see README.md."""

from functools import lru_cache
from typing import Any

from cbs.instances.networks import layer_instances
from solvers import Budget, SubsetProblem, solve
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.instances import random_problem
from solvers.instances.layer_data import LayerData

GAP = 1e-4


def layer(network: str, layer: str, variant: str, sparsity: float, limit: float = 60.0) -> dict[str, Any]:
    """All rows of a layer in one call, in `limit` seconds a row."""
    data = of_layer(network, layer)
    m, n = data.weights.shape
    warm_up(BranchAndBound(), "cpu")
    budget = Budget.per_row(round(sparsity * n))
    problem = SubsetProblem(data.weights, data.hessian, budget, refit=variant == "joint")
    return {
        "family": f"{network}/{layer}",
        "m": m,
        "n": n,
        **facts(problem, BranchAndBound(), limit * m, "cpu"),
    }


def engines(
    sparsity: float, engine: str, device: str, rows: int = 32, layer: str = "0", limit: float = 300.0
) -> dict[str, Any]:
    """The first rows of a layer of the digits network by one of our engines, `compiled` or `batched`."""
    data = of_layer("digits", layer)
    n = data.weights.shape[1]
    solver = BranchAndBound(engine=engine)
    warm_up(solver, device)
    problem = SubsetProblem(data.weights[:rows], data.hessian, Budget.per_row(round(sparsity * n)))
    found = facts(problem, solver, limit, device)
    return {"m": problem.m, "n": n, "nodes_a_second": found["nodes"] / found["seconds"], **found}


def facts(problem: SubsetProblem, solver: BranchAndBound, limit: float, device: str) -> dict[str, Any]:
    found = solve(problem, solver, gap=GAP, time_limit=limit, device=device)
    return {
        "status": found.status.value, "value": found.value, "bound": found.bound, "gap": found.gap,
        "seconds": found.seconds, "nodes": int(found.stats["nodes"]),
    }  # fmt: skip


@lru_cache(maxsize=8)
def of_layer(network: str, layer: str) -> LayerData:
    """The rows and curvature that the instances of a network's layer are made of."""
    (found,) = layer_instances(network, layers=[layer])
    return found.data


def warm_up(solver: BranchAndBound, device: str) -> None:
    """Compile what the first solve would pay for."""
    for refit in (True, False):
        solve(random_problem(2, 6, Budget.per_row(3), refit=refit, seed=0), solver, device=device)
