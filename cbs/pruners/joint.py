"""The project's own method: combinatorial joint selection on the layer objective, certified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cbs.earlier import keep_all_out, keep_out
from cbs.formulation import Objective, pruned
from cbs.network.network import Network
from cbs.plan import LayerPlan, Plan
from cbs.pruners.recalibrate import recalibrate
from cbs.pruners.turns import Turn, in_turns
from cbs.references import References
from cbs.request import Request
from cbs.watch import Watch
from solvers import Budget, SubsetProblem
from solvers.allocation import allocate
from solvers.hessian import Array
from solvers.problem import Mask
from solvers.together import WIDEST

EXACT = ("auto", "branch-and-bound")
"""Solvers for which a network's shared budget is searched."""
CURVES = 0.3
"""Of the time left for a network's layers: what is kept for the lower curves of all counts."""


def joint(network: Network, request: Request, watch: Watch, references: References) -> Plan:
    """Minimise every layer's objective over masks and survivors together (docs/mathematics.md).

    With one budget for the network, rows get their counts from their curves, scaled by `E[(dL/da_r)^2]`
    and allocated exactly; the rows are then solved with these counts. Where an exact solver is
    asked for and some layers are small enough, the curves are tightened until they prove the allocation, as
    far as wider layers let them; else they are greedy.
    """
    starts: list[Mask | None] = [None] * len(network.layers)
    stats: Mapping[str, Any] = {}
    if request.pooled:
        if _provable(network, request):
            masks, stats = _proven_shares(network, request, watch, references)
        else:
            masks = _greedy_shares(network, request)
        dense = [weights.W for weights in network.dense]
        masks = keep_all_out(request, network.layers, masks, network.earlier, dense)
        starts = [*masks]
        budgets = [Budget.per_row(mask.sum(axis=1).tolist()) for mask in masks]
    else:
        budgets = [request.layer_budget(layer) for layer in network.layers]
    turns = []
    for i, (objective, budget, known) in enumerate(zip(network.objectives, budgets, starts, strict=True)):
        problem = objective.problem(budget)
        start = None if known is None else _widen(problem, known)
        weight = float(network.scales[i].mean()) if request.pooled else 1.0
        turns.append(Turn(i, objective.name, problem, start, weight))
    with watch.sparing(CURVES if request.pooled and request.certify else 0.0):
        in_turns(turns, request, watch, references)
    plans = []
    for i, turn in enumerate(turns):
        problem, solution = turn.problem, turn.answer
        p = problem.prunable
        mask = keep_out(solution.mask[:, p], network.earlier[i], problem.pools, problem.W[:, p])
        wide = _widen(problem, mask)
        plans.append(LayerPlan.solved(pruned(problem, wide, problem.weights(wide)), solution, watch))
    if request.recalibrate and not watch.interrupted:
        plans = recalibrate(network, plans)
    if not request.pooled:  # the row scales, which a prediction takes, are a pass of their own
        return Plan(plans, stats=stats)
    return Plan(plans, *_prediction(network, plans), stats)


def _provable(network: Network, request: Request) -> bool:
    small = any(layer.shape[1] <= WIDEST for layer in network.layers)
    return small and request.certify and request.solver in EXACT


def _proven_shares(
    network: Network, request: Request, watch: Watch, references: References
) -> tuple[list[Mask], Mapping[str, Any]]:
    """Masks of one budget for the network, whose bound goes to the references, and how they were found."""
    count = request.network_count(network.layers)
    ends = np.cumsum([layer.size for layer in network.layers])
    parts = np.diff(count * ends // ends[-1], prepend=0).tolist()
    problems = [
        objective.problem(Budget.per_layer(part), scales)
        for objective, part, scales in zip(network.objectives, parts, network.scales, strict=True)
    ]
    found = watch.solve_together(problems, share=0.4, patience=request.solver == "auto", widest=WIDEST)
    rounding = sum(8 * problem.n * np.finfo(float).eps * problem.scale for problem in problems)
    references.learn_total(count, found.bound - rounding)
    masks = [mask[:, problem.prunable] for problem, mask in zip(problems, found.masks, strict=True)]
    return masks, {"sharing": {**found.stats, "seconds": found.seconds, "status": found.status.value}}


def _greedy_shares(network: Network, request: Request) -> list[Mask]:
    """Greedy masks of one budget for the network."""
    curves = [
        scale * values
        for scales, layer in zip(network.scales, network.curves, strict=True)
        for scale, values in zip(scales, layer.values, strict=True)
    ]
    counts = allocate(curves, request.network_count(network.layers))
    ends = np.cumsum([layer.shape[0] for layer in network.layers])[:-1]
    return [curve.masks(k) for curve, k in zip(network.curves, np.split(counts, ends), strict=True)]


def _widen(problem: SubsetProblem, mask: Mask) -> Mask:
    wide = np.zeros(problem.W.shape, dtype=bool)
    wide[:, problem.prunable] = mask
    return wide


def _prediction(network: Network, plans: list[LayerPlan]) -> tuple[float, str]:
    total = 0.0
    for objective, scale, plan in zip(network.objectives, network.scales, plans, strict=True):
        total += float(scale @ _undamped(objective, plan))
    return total, "1/2 sum_r E[(dL/da_r)^2] D_r H D_r', H the layer Gram"


def _undamped(objective: Objective, plan: LayerPlan) -> Array:
    moved = plan.answer.weights
    D = moved.W - objective.dense.W
    values: Array = objective.row_values(moved) - 0.5 * objective.damping * (D * D).sum(axis=1)
    return values
