"""From a method's plan to a pruned model and its result: surgery and measurement."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from cbs.change import Weights, layer_weights
from cbs.curvature import Gram
from cbs.curvature.output import row_scales
from cbs.figures import Certified, LayerResult, Measured, RowResult
from cbs.history import Stage
from cbs.network import surgery
from cbs.network.evaluate import OutputChange, evaluate, output_changes
from cbs.network.network import Network
from cbs.network.norms import find_norms, recompute_norms
from cbs.plan import Plan, unmoved
from cbs.quadratic import Quadratic, absolute_damping
from cbs.removal import removed
from cbs.request import Request
from cbs.result import PruneResult
from cbs.watch import Watch
from solvers.hessian import Array

SLACK = 1e-6
"""Largest disagreement of an objective and its measurement, relative to their size without cancellation."""

EXAMPLE = 16
"""Calibration samples that a result carries."""


@dataclass(frozen=True)
class Run:
    """A method's run: its result, and what its bounds depend on.

    Attributes:
        result: without bounds as yet, unless it is settled.
        request: what was asked.
        watch: its limits and interruption.
        settled: whether its bounds are all that will be known.
    """

    result: PruneResult
    request: Request
    watch: Watch
    settled: bool = False


def assemble(
    network: Network,
    request: Request,
    watch: Watch,
    plan: Plan,
    stage: Stage,
    state: Mapping[str, torch.Tensor] | None = None,
) -> Run:
    """Apply a plan to a copy of the network, and measure what it did.

    Args:
        network: the dense network.
        request: what was asked.
        watch: of the run.
        plan: the method's answers.
        stage: the method's part of the history, whose sparsity is not known yet.
        state: of the pruned network, where more than the plan's layers moved.
    """
    model = surgery.clone(network.model)
    if state is not None:
        model.load_state_dict(dict(state))
    after = [layer.of(model) for layer in network.layers]
    surgery.apply(after, [step.change for step in plan.layers])
    held = request.certify or network.has(Gram())  # against what the Grams say, to many digits
    changes = output_changes(network.model, network.layers, after, network.samples, precise=held)
    layers, value = [], 0.0
    for i, (layer, step) in enumerate(zip(after, plan.layers, strict=True)):
        moved, dead = layer_weights(layer), plan.dead(layer)
        damping, measured = _measured(network, i, moved, changes[layer.name])
        moved, measured = unmoved(dead, network.dense[i], moved), np.where(dead, 0.0, measured)
        values = measured
        if held:
            objective = network(Gram())[i]
            values = objective.row_values([moved])
            _compare(objective, moved, measured, torch.finfo(layer.weight.dtype).eps)
        value += float(row_scales(network)[i] @ values) if request.pooled else float(values.sum())
        counts = step.change.mask.sum(axis=1)
        waits = [None] * len(values) if step.row_seconds is None else step.row_seconds.tolist()
        rows = [
            RowResult(value=float(v), bound=None, pruned=int(k), seconds=s, solver=step.solver)
            for v, k, s in zip(values, counts, waits, strict=True)
        ]
        layer_result = LayerResult(
            name=layer.name, shape=layer.own_shape, kept=layer.size - int(counts.sum()),
            value=float(values.sum()), bound=None, measured=float(measured.sum()), damping=damping,
            seconds=step.seconds, solver=step.solver, status=step.status, rows=rows, stats=step.stats,
        )  # fmt: skip
        layers.append(layer_result)
    began, norms = time.perf_counter(), list[str]()
    if request.norms and find_norms(model):
        watch.tell("norms")
        norms = recompute_norms(model, network.samples, network.kept.model)
    stage = replace(stage, norms=norms, seconds=stage.seconds + time.perf_counter() - began)
    sparsity = 1 - sum(layer.kept for layer in layers) / sum(layer.size for layer in after)
    held_out = network.held_out
    measured_all = Measured(
        before=network.before, after=evaluate(model, network.samples, network.loss),
        test_before=network.test_before,
        test_after=None if held_out is None else evaluate(model, held_out, network.loss),
        sparsity=sparsity, seconds=stage.seconds, prediction=plan.prediction, prediction_model=plan.model,
    )  # fmt: skip
    stage = replace(
        stage, sparsity=sparsity, value=value, pruned=measured_all.after, test_pruned=measured_all.test_after
    )
    result = PruneResult(
        model=model, request=request, layers=layers, measured=measured_all,
        certified=Certified(value=value, bound=None, status="feasible"),
        history=[stage],
        left_out=network.left_out, saved=network.saved,
        neurons=removed(network, model, plan.neurons) if plan.neurons else [],
        original=surgery.clone(network.model).state_dict() if norms else None,
        example=network.samples.first(EXAMPLE).to("cpu"),
    )  # fmt: skip
    network.restore(model)
    return Run(result, request, watch)


def _measured(network: Network, i: int, moved: Weights, change: OutputChange) -> tuple[float, Array]:
    """A layer's damping, and the `[m]` objectives of its rows by running its modules."""
    damping = absolute_damping(change.diagonal, network.damping)
    return damping, change.rows + 0.5 * damping * np.square(moved.W - network.dense[i].W).sum(axis=1)


def _compare(objective: Quadratic, moved: Weights, measured: Array, eps: float) -> None:
    """Hold a layer's objective against what running its modules says, as lengths of the output's move.

    Rounding, of inputs of precision `eps` too, moves such a length by a share of what it would be without
    cancellation.

    Raises:
        ValueError: if the two disagree by more.
    """
    value, ran, scale = objective.row_values([moved]).sum(), measured.sum(), objective.scale([moved])
    if not abs(math.sqrt(max(value, 0.0)) - math.sqrt(ran)) <= max(SLACK, eps) * math.sqrt(scale):
        raise ValueError(
            f"layer {objective.name!r} does not do what its weights say: its objective is {value:.6g}, "
            f"running it gives {ran:.6g}; leave it out with `layers`"
        )
