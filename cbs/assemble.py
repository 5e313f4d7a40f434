"""From a method's plan to a pruned model and its result: surgery, measurement, and the bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from cbs.formulation import Objective, Weights, absolute_damping, layer_weights
from cbs.network import surgery
from cbs.network.evaluate import Change, evaluate, output_changes
from cbs.network.network import Network
from cbs.plan import Plan
from cbs.references import LayerBound, References
from cbs.request import Request
from cbs.result import LayerResult, PruneResult, RowResult
from cbs.watch import Watch
from solvers import Budget
from solvers.hessian import Array

SLACK = 1e-6
"""Largest disagreement of an objective and its measurement, relative to their size without cancellation."""

STOPPED = ("time_limit", "patience", "node_limit", "memory_limit")
"""Statuses of a layer that a whole result takes over, the first one first."""


@dataclass(frozen=True)
class Run:
    """A method's run: its result, still without bounds, and what the bounds depend on."""

    result: PruneResult
    request: Request
    watch: Watch


def assemble(network: Network, request: Request, watch: Watch, plan: Plan, seconds: float) -> Run:
    """Apply a plan to a copy of the network, and measure what it did.

    Args:
        network: the dense network.
        request: what was asked.
        watch: of the run.
        plan: the method's answers.
        seconds: that the method took.
    """
    model = surgery.clone(network.model)
    after = [layer.of(model) for layer in network.layers]
    for layer, step in zip(after, plan.layers, strict=True):
        surgery.apply(layer, step.answer)
    modules = {layer.name: layer.module for layer in after}
    held = request.certify or network.has_objectives  # against what the Grams say, to many digits
    changes = output_changes(network.model, network.layers, modules, network.samples, precise=held)
    layers, value = [], 0.0
    for i, (layer, step) in enumerate(zip(after, plan.layers, strict=True)):
        moved = layer_weights(layer)
        damping, measured = _measured(network, i, moved, changes[layer.name])
        values = measured
        if held:
            values = network.objectives[i].row_values(moved)
            _compare(network.objectives[i], moved, measured, torch.finfo(layer.module.weight.dtype).eps)
        value += float(network.scales[i] @ values) if request.pooled else float(values.sum())
        counts = step.answer.mask.sum(axis=1)
        waits = [None] * len(values) if step.row_seconds is None else step.row_seconds.tolist()
        rows = [
            RowResult(float(v), None, int(k), s, step.solver)
            for v, k, s in zip(values, counts, waits, strict=True)
        ]
        layer_result = LayerResult(
            layer.name, tuple(layer.module.weight.shape), layer.size - int(counts.sum()),
            float(values.sum()), None, float(measured.sum()), damping,
            step.seconds, step.solver, step.status, rows, step.stats,
        )  # fmt: skip
        layers.append(layer_result)
    size = sum(layer.size for layer in after)
    held_out = network.held_out
    result = PruneResult(
        model=model, method=watch.method, asked=request.fraction,
        sparsity=1 - sum(layer.kept for layer in layers) / size, scope=request.scope,
        budget=request.budget, solver=request.solver, status="feasible", layers=layers, value=value,
        bound=None, seconds=seconds, predicted=plan.prediction, prediction_model=plan.model,
        before=network.before, after=evaluate(model, network.samples, network.loss),
        test_before=network.test_before,
        test_after=None if held_out is None else evaluate(model, held_out, network.loss),
        damping=network.damping, seed=request.seed, left_out=network.left_out, stats=dict(plan.stats),
        saved=network.saved,
    )  # fmt: skip
    network.restore(model)
    return Run(result, request, watch)


def _measured(network: Network, i: int, moved: Weights, change: Change) -> tuple[float, Array]:
    """A layer's damping, and the `[m]` objectives of its rows by running its modules."""
    damping = absolute_damping(change.diagonal, network.damping)
    return damping, change.rows + 0.5 * damping * np.square(moved.W - network.dense[i].W).sum(axis=1)


def _compare(objective: Objective, moved: Weights, measured: Array, eps: float) -> None:
    """Hold a layer's objective against what running its modules says, as lengths of the output's move.

    Rounding, of inputs of precision `eps` too, moves such a length by a share of what it would be without
    cancellation.

    Raises:
        ValueError: if the two disagree by more.
    """
    value, ran, scale = objective.row_values(moved).sum(), measured.sum(), objective.scale(moved)
    if not abs(math.sqrt(max(value, 0.0)) - math.sqrt(ran)) <= max(SLACK, eps) * math.sqrt(scale):
        raise ValueError(
            f"layer {objective.name!r} does not do what its weights say: its objective is {value:.6g}, "
            f"running it gives {ran:.6g}; leave it out with `layers`"
        )


def certify_result(run: Run, references: References, *, compute: bool) -> PruneResult:
    """The run's result with the best bounds known. Ctrl-C leaves out those that are not known yet.

    Args:
        run: a method's run.
        references: of its network.
        compute: whether to compute bounds that are not known, where the request asks for them.
    """
    compute = compute and run.request.certify and not run.watch.interrupted
    run.watch.resume()
    try:
        layers, bound = _bounds(run, references, compute)
    except KeyboardInterrupt:
        run.watch.control.interrupted = True
        layers, bound = _bounds(run, references, False)
    if not run.request.certify and any(map(_says_nothing, layers)):
        layers = [replace(layer, bound=None) if _says_nothing(layer) else layer for layer in layers]
        bound = None
    result = replace(run.result, layers=layers, bound=bound)
    return replace(result, status=_status(run, result))


def _says_nothing(layer: LayerResult) -> bool:
    """Whether a layer's bound is the zero that no sum of squares is below, with nothing proven."""
    return layer.bound == 0 < layer.value


def take_up(result: PruneResult, request: Request, watch: Watch, references: References) -> Run:
    """The run of a result that is there already, whose bounds become known.

    Raises:
        ValueError: if it is of other layers.
    """
    network = references.network
    there = [(layer.name, layer.shape) for layer in result.layers]
    if there != [(layer.name, tuple(layer.module.weight.shape)) for layer in network.layers]:
        raise ValueError(f"finished: the result of {result.method!r} is of other layers than the network's")
    for i, layer in enumerate(result.layers):
        rows = [row.bound for row in layer.rows if row.bound is not None]
        known = np.array(rows) if len(rows) == len(layer.rows) else None
        if layer.bound is not None:
            references.recall(i, _budget(network, request, layer, i), LayerBound(layer.bound, known))
    if request.pooled and result.bound is not None:
        references.learn_total(request.network_count(network.layers), result.bound)
    return Run(result, request, watch)


def _budget(network: Network, request: Request, layer: LayerResult, index: int) -> Budget:
    """What a layer's bounds are about."""
    if request.pooled:
        return Budget.per_row([row.pruned for row in layer.rows])
    return request.layer_budget(network.layers[index])


def _bounds(run: Run, references: References, compute: bool) -> tuple[list[LayerResult], float | None]:
    request, network = run.request, references.network
    layers: list[LayerResult] = []
    for i, layer in enumerate(run.result.layers):
        budget = _budget(network, request, layer, i)
        if compute and not run.watch.tell("certify", layer.name, i):
            references.certify(
                i, budget, run.watch, value=layer.value, by_curves=request.pooled,
                share=1.0 / (len(run.result.layers) - i),
            )  # fmt: skip
        known = references.known(i, budget)
        layers.append(_with_bound(layer, known, request.gap))
    if request.pooled:
        if not compute or run.watch.interrupted:
            return layers, None
        value = run.result.value
        return layers, min(references.total(request.network_count(network.layers), run.watch, value), value)
    bounds = [layer.bound for layer in layers]
    return layers, None if None in bounds else sum(bounds)  # type: ignore[arg-type]


def _with_bound(layer: LayerResult, known: LayerBound, gap: float) -> LayerResult:
    rows = layer.rows
    if known.rows is not None:
        rows = [replace(row, bound=min(float(b), row.value)) for row, b in zip(rows, known.rows, strict=True)]
    bound = min(known.bound, layer.value) if math.isfinite(known.bound) else None
    bounded = replace(layer, rows=rows, bound=bound)
    proven = bounded.gap is not None and bounded.gap <= gap
    unproven = "feasible" if layer.status == "optimal" else layer.status
    return replace(bounded, status="optimal" if proven else unproven)


def _status(run: Run, result: PruneResult) -> str:
    if run.watch.interrupted:
        return "interrupted"
    if result.gap is not None and result.gap <= run.request.gap:
        return "optimal"
    reasons = {layer.status for layer in result.layers}
    return next((reason for reason in STOPPED if reason in reasons), "feasible")
