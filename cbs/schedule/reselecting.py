"""Re-selection in a stage: after a pruning that leaves more than asked for, by the network's own curvature.

The method prunes to fewer weights than there are but more than are asked for, as long as a matrix of all of
them can be written out; re-selection goes on from there, and what it leaves is assembled and measured as any
plan is: values, bounds and gaps are those of its masks and weights.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cbs.assemble import Run, assemble
from cbs.change import Change, layer_weights
from cbs.earlier import pruned_before
from cbs.methods import get_method
from cbs.network.network import Network
from cbs.network.surgery import clone, read_masks
from cbs.plan import LayerPlan, Plan
from cbs.refit.network import FEWEST
from cbs.reselection.rounds import LARGEST, ROUNDS, reselect
from cbs.reselection.search import work_of_a_sample
from cbs.watch import Callback, Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cbs.request import Request

WIDER, MOST = 3.0, 3_000
"""How many times the weights asked for the method leaves, and up to how many."""
COVERED = 0.5
"""Share of the survivors that a pool must have room for where nobody asked for re-selection."""
MATRIX, ABLE = 200, 2e11
"""Samples of a matrix whose passes back may take no more than so many multiplications."""


def wanted(network: Network, request: Request, asked: Request) -> tuple[bool, str | None]:
    """Whether a stage's masks are chosen anew, and why not where that was asked for.

    Args:
        network: that the stage prunes.
        request: what is asked of all stages.
        asked: what is asked of this one.
    """
    if request.refit != "network" or (request.reselect is not None and not request.reselect):
        return False, None
    reason = unfit(network, request)
    if request.reselect:
        return reason is None, reason
    keep = (1 - asked.fraction) * sum(layer.size for layer in network.layers)
    return reason is None and COVERED * keep <= LARGEST and get_method(request.method).open, None


def unfit(network: Network, request: Request) -> str | None:
    """Why there is no re-selection of this network, or None."""
    if request.neurons or request.budget == "columns":
        what = "neurons" if request.neurons else "columns"
        return f"it chooses single weights, in budgets 'unstructured' and N:M, not {what}"
    if tables := [layer.name for layer in network.layers if layer.tokens]:
        return (
            f"layer {tables[0]!r} is an Embedding, whose weights are not decided with those of other layers"
        )
    if len(network.samples) < 3 * FEWEST:
        return f"{len(network.samples)} samples are too few to hold {FEWEST} back; give {3 * FEWEST} or more"
    if MATRIX * work_of_a_sample(network.model, network.samples) > ABLE:
        return (
            "a matrix of the network takes a pass back for every output and sample where layers have several "
            "positions, which is too much work here"
        )
    return None


def widened(request: Request, network: Network) -> Request:
    """The request of a pruning that leaves more weights, from which re-selection goes on."""
    if request.pattern is not None:
        return request
    total = sum(layer.size for layer in network.layers)
    keep = round((1 - request.fraction) * total)
    there = sum(int((~mask).sum()) for mask in network.earlier)
    aim = min(max(keep, min(WIDER * keep, MOST)), there)
    solver = "greedy" if request.solver == "auto" else request.solver
    if aim <= keep:
        return replace(request, certify=False, solver=solver)
    wider = max(1 - aim / total, pruned_before(request, network.layers, network.earlier))
    return replace(request, sparsity=min(wider, request.fraction), certify=False, solver=solver)


def reselected(
    run: Run,
    here: Network,
    dense: Network,
    part: Request,
    request: Request,
    last: bool,
    until: float,
    callback: Callback | None,
) -> Run:
    """The run of a stage with its masks chosen anew: assembled, measured, and without bounds as yet.

    Ctrl-C, a true answer of the callback and the end of the time keep the best there is by then.

    Args:
        run: of the widened request.
        here: what the stage pruned.
        dense: the network whose outputs are matched.
        part: what is asked of the stage.
        request: what is asked of all of them.
        last: whether it is the last one; others have no rounds at the number of weights asked for.
        until: when to end, by `time.perf_counter`.
        callback: told of every round.
    """
    began, watch, model = time.perf_counter(), run.watch, run.result.model
    where, name = next(model.parameters()).device, run.result.history[-1].method["name"]
    pools, keep = pools_of(part, here)
    model.to(here.device)
    count = 0

    def told(record: Mapping[str, Any]) -> bool:
        nonlocal count
        count += 1
        if callback is not None and callback(Step(name, "reselect", index=count, count=ROUNDS)):
            watch.control.interrupted = True
        return watch.interrupted

    found = reselect(
        model, dense.model, dense.samples, layers=[*dict.fromkeys(layer.path for layer in here.layers)],
        pools=pools, keep=keep,
        earlier=here.masks.get("weight", {}), loss=dense.loss, match=request.match, labels=request.labels,
        rounds=ROUNDS if last else 0, seed=request.seed, until=until, stopped=lambda: watch.interrupted,
        told=told,
    )  # fmt: skip
    if found.interrupted:
        watch.control.interrupted = True
    masks = read_masks(model)
    status = "interrupted" if watch.interrupted else "feasible"
    plans = []
    for layer, old in zip(here.layers, run.result.layers, strict=True):
        mask = layer.matrix(masks[layer.path]).cpu().numpy()
        change = Change(mask, layer_weights(layer.of(model)))
        plans.append(LayerPlan(change, f"{old.solver}, re-selection", status, old.seconds, None, old.stats))
    stage = run.result.history[-1]
    seconds = stage.seconds + time.perf_counter() - began
    plan = Plan(plans, None, None, stage.stats)
    asked = replace(part, norms=False)
    again = assemble(
        here, asked, watch, plan, replace(stage, seconds=seconds), state=clone(model).state_dict()
    )
    now = replace(again.result.history[-1], norms=stage.norms, reselection=found.stats)
    result = replace(again.result, history=[now], original=run.result.original, request=part)
    model.to(where)
    return replace(again, result=result, request=part)


def pools_of(request: Request, network: Network) -> tuple[dict[str, Tensor], Tensor]:
    """For every layer the pools of its weights under a budget, of its weight's shape, and what each keeps."""
    pools: dict[str, Tensor] = {}
    if request.pooled:
        for layer in network.layers:
            pools[layer.path] = torch.zeros(layer.parameter.shape, dtype=torch.int64)
        total = sum(layer.size for layer in network.layers)
        return pools, torch.tensor([total - request.network_count(network.layers)], device=network.device)
    keep: list[np.ndarray] = []
    first = 0
    for layer in network.layers:
        laid = request.layer_budget(layer).laid_over(*layer.shape)
        whole = pools.setdefault(layer.path, torch.zeros(layer.parameter.shape, dtype=torch.int64))
        labels = torch.from_numpy(laid.labels + first)
        layer.view(whole).copy_(labels.reshape(layer.weight.shape))
        keep.append(laid.keep)
        first += len(laid.keep)
    return pools, torch.from_numpy(np.concatenate(keep)).to(network.device)


def time_for(until: float, share: float) -> float:
    """When a share of the time from now on is over."""
    now = time.perf_counter()
    return until if math.isinf(until) else now + share * max(0.0, until - now)
