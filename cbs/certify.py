"""Certificates in numbers: the best lower bounds known, and what they say of a result's masks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cbs.assemble import Run
from cbs.figures import Certified, LayerResult
from cbs.network.network import Network
from cbs.references import LayerBound, References
from cbs.removal import unit_width
from cbs.request import Request
from cbs.result import PruneResult
from cbs.watch import Watch
from solvers import Budget

STOPPED = ("time_limit", "patience", "node_limit", "memory_limit")
"""Statuses of a layer that a whole result takes over, the first one first."""

SETTINGS = (
    "scope",
    "budget",
    "along",
    "granularity",
    "pipeline",
    "refit",
    "match",
    "labels",
    "norms",
    "reselect",
    "damping",
    "samples",
    "loss",
    "seed",
    "solver",
    "stages",
    "finetune",
    "max_loss_increase",
    "max_accuracy_drop",
)
"""Fields of a request on which its masks depend, or what its bounds are about; limits are not among them."""


def certify_result(run: Run, references: References, *, compute: bool) -> PruneResult:
    """The run's result with the best bounds known. Ctrl-C leaves out those that are not known yet.

    Args:
        run: a method's run.
        references: of its network.
        compute: whether to compute bounds that are not known, where the request asks for them.
    """
    if run.settled:
        return run.result
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
    certified = replace(run.result.certified, bound=bound)
    certified = replace(certified, status=_status(run, layers, certified))
    return replace(run.result, layers=layers, certified=certified)


def _says_nothing(layer: LayerResult) -> bool:
    """Whether a layer's bound is the zero that no sum of squares is below, with nothing proven."""
    return layer.bound == 0 < layer.value


def take_up(result: PruneResult, request: Request, watch: Watch, references: References) -> Run:
    """The run of a result that is there already, whose bounds become known.

    Of several stages it stays as it is: its bounds are of a network that is not there any more.

    Raises:
        ValueError: if it is of other layers, or was asked for with other settings.
    """
    network = references.network
    there = [(layer.name, layer.shape) for layer in result.layers]
    if there != [(layer.name, layer.own_shape) for layer in network.layers]:
        raise ValueError(f"finished: the result of {result.method!r} is of other layers than the network's")
    asked, was = request.to_dict(), result.request.to_dict()
    other = next((name for name in SETTINGS if was[name] != asked[name]), None)
    if other is not None:
        raise ValueError(
            f"finished: the result of {result.method!r} has {other} {was[other]!r}, not {asked[other]!r}"
        )
    if request.schedule.count > 1:
        return Run(replace(result, request=request), request, watch, settled=True)
    for i, layer in enumerate(result.layers):
        rows = [row.bound for row in layer.rows if row.bound is not None]
        known = np.array(rows) if len(rows) == len(layer.rows) else None
        if layer.bound is not None and not request.neurons:
            references.recall(i, _budget(network, request, layer, i), LayerBound(layer.bound, known))
    if request.pooled and result.bound is not None and not request.neurons:
        references.learn_total(request.network_count(network.layers), result.bound)
    return Run(replace(result, request=request), request, watch)


def _budget(network: Network, request: Request, layer: LayerResult, index: int) -> Budget:
    """What a layer's bounds are about."""
    if request.pooled:
        return Budget.per_row([row.pruned for row in layer.rows])
    return request.layer_budget(network.layers[index])


def _bounds(run: Run, references: References, compute: bool) -> tuple[list[LayerResult], float | None]:
    request, network = run.request, references.network
    if request.neurons:
        return _neuron_bounds(run, references, compute)
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


def _neuron_bounds(run: Run, references: References, compute: bool) -> tuple[list[LayerResult], float | None]:
    """Bounds where neurons are pruned: of layers whose columns are one group's, neighbours for a neuron.

    Such a layer's bound is that of its rows that are left, with as many columns pruned: the joint problem
    of budget `columns`. A layer that no neuron feeds has nothing to lose, its bound is zero. Other layers
    have none, nor has any where all groups share one budget. The sum bounds the network where it does not
    depend on which rows are left.
    """
    request, network = run.request, references.network
    layers: list[LayerResult] = []
    total: float | None = 0.0
    for i, layer in enumerate(run.result.layers):
        feeding = [group for group in network.neurons if layer.name in group.columns]
        rows = {row for group in run.result.neurons for row in group.rows.get(layer.name, ())}
        live = np.array([r not in rows for r in range(len(layer.rows))])
        bound = layer.bound
        if not feeding:
            bound = 0.0
        elif not request.pooled and (width := unit_width(network, i)):
            (group,) = (group for group in run.result.neurons if group.name == feeding[0].name)
            budget = Budget.columns(len(group.neurons), width)
            if bound is not None:
                references.learn_rows(i, budget, live, bound)
            if compute and not run.watch.tell("certify", layer.name, i):
                share = 1.0 / (len(run.result.layers) - i)
                references.relax_rows(i, budget, live, run.watch, value=layer.value, share=share)
            known = references.of_rows(i, budget, live)
            bound = max(known, bound or 0.0) if math.isfinite(known) else bound
        found = LayerBound(-math.inf if bound is None else bound)
        layers.append(_with_bound(layer, found, request.gap))
        conditional = feeding and not live.all()
        total = None if total is None or layers[-1].bound is None or conditional else total + layers[-1].bound
    return layers, total


def _with_bound(layer: LayerResult, known: LayerBound, gap: float) -> LayerResult:
    rows = layer.rows
    if known.rows is not None:
        rows = [replace(row, bound=min(float(b), row.value)) for row, b in zip(rows, known.rows, strict=True)]
    bound = min(known.bound, layer.value) if math.isfinite(known.bound) else None
    bounded = replace(layer, rows=rows, bound=bound)
    proven = bounded.gap is not None and bounded.gap <= gap
    unproven = "feasible" if layer.status == "optimal" else layer.status
    return replace(bounded, status="optimal" if proven else unproven)


def _status(run: Run, layers: list[LayerResult], certified: Certified) -> str:
    if run.watch.interrupted:
        return "interrupted"
    if certified.gap is not None and certified.gap <= run.request.gap:
        return "optimal"
    reasons = {layer.status for layer in layers}
    return next((reason for reason in STOPPED if reason in reasons), "feasible")
