"""The Combinatorial Brain Surgeon as published: CBS-S, and CBS, which is CBS-S and CBS-U."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from cbs.formulation import Pruned, Weights, masked
from cbs.network.network import Network
from cbs.plan import LayerPlan, Plan
from cbs.pruners.blocks import block_problem, blocks, keep_out_of_block
from cbs.pruners.fisher import FALLBACK, fisher_plan
from cbs.request import Request
from cbs.trial import Trial
from cbs.watch import Watch
from solvers import Budget, Solver, SubsetProblem
from solvers.heuristics.published.swapping import Swapping


def cbs_selection(network: Network, request: Request, watch: Watch) -> Plan:
    """CBS-S (Yu et al. 2022): minimise `1/2 w_P' H_PP w_P` on the damped empirical Fisher.

    By randomized magnitude pruning and greedy swapping, the best mask kept by the true loss on a
    sample, layers before it already masked; or by the solver asked for, on the quadratic alone.
    """
    found = blocks(network, request)
    trial = Trial(network, request.seed)
    steps = []
    for block in found:
        problem, lift = block_problem(network, request, block, refit=False)
        solver: str | Solver = request.solver
        if solver == "auto":
            solver = Swapping(score=lambda mask, b=block, up=lift: trial(b.index, up(mask)))  # type: ignore[misc]
        name = None if request.pooled else network.layers[block.index[0]].name
        solution = watch.solve(
            problem,
            FALLBACK if watch.interrupted else solver,
            stage="select",
            layer=name,
            index=block.index[0],
        )
        masks = lift(keep_out_of_block(problem, block, solution.mask))
        trial(block.index, masks)
        for i, mask in zip(block.index, masks, strict=True):
            answer = masked(network.dense[i], mask)
            steps.append(LayerPlan.solved(answer, solution, watch, 1 / len(masks)))
    return fisher_plan(network, found, steps)


def cbs(network: Network, request: Request, watch: Watch) -> Plan:
    """CBS-S, then CBS-U: `w* = w - H^-1[:,P] ([H^-1]_PP)^-1 w_P` (Yu et al. 2022)."""
    chosen = cbs_selection(network, request, watch).layers
    found = blocks(network, request)
    steps = []
    for block in found:
        start = time.perf_counter()
        masks = [chosen[i].answer.mask for i in block.index]
        flat = np.concatenate([mask.ravel() for mask in masks])[None, :]
        budget = Budget.per_layer(int(flat.sum()))
        moved = SubsetProblem(block.w[None, :], block.hessian, budget).weights(flat)
        seconds = (time.perf_counter() - start) / len(masks)
        for i, mask, W in zip(block.index, masks, block.split(moved), strict=True):
            answer = Pruned(mask, Weights(W, network.dense[i].bias))
            steps.append(replace(chosen[i], answer=answer, seconds=chosen[i].seconds + seconds))
    return fisher_plan(network, found, steps)
