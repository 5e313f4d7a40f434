"""The one way in which every method is run: models of the loss, what is pruned, and what moves then."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cbs.compensation.recalibrate import one_after_another, recalibrate
from cbs.curvature.base import LayerCurvature
from cbs.curvature.output import row_scales
from cbs.curvature.stored import OneByOne
from cbs.earlier import keep_all_out
from cbs.method import Method
from cbs.network.network import Network
from cbs.plan import LayerPlan, Plan
from cbs.quadratic import Quadratic
from cbs.references import References
from cbs.removal import remove_neurons, silenced
from cbs.request import Request
from cbs.selection import Job, WeightSelection
from cbs.watch import Watch
from solvers import Budget
from solvers.problem import Mask


def run(method: Method, network: Network, request: Request, watch: Watch, references: References) -> Plan:
    """Prune a network by a method: what becomes of every layer, before surgery.

    Raises:
        ValueError: if the network is too large for the method, or has not what it needs.
    """
    curvature = method.curvature.within(request)
    tables = [layer.name for layer in network.layers if layer.tokens]
    if tables and not (curvature.embeds and method.selection.embeds):
        part = method.selection if curvature.embeds else curvature
        raise ValueError(
            f"method {method.name!r} does not do layer {tables[0]!r}, an Embedding ({part.words}); "
            "leave it out of `layers`, or take method 'joint'"
        )
    if reason := method.selection.unfit(curvature, network) or curvature.unfit(network):
        raise ValueError(f"method {method.name!r} {reason}")
    rng = np.random.default_rng(request.seed)
    job = Job(network, curvature.damped(network.damping), request, watch, references, rng)
    whole = None
    if request.neurons:
        whole = remove_neurons(method, job)
        plans = whole.layers
    else:
        plans = _sequential(method, job) if request.pipeline == "sequential" else _one_shot(method, job)
    plans = method.compensation.settle(job, plans)
    refits = request.refit == "layer" and method.compensation.refits and not watch.interrupted
    if refits and isinstance(job.curvature, LayerCurvature):
        plans = recalibrate(network, plans, job.curvature)
    if whole is not None:
        whole = silenced(network, replace(whole, layers=plans))
        plans = whole.layers
    stats = {**job.stats, **job.curvature.stats(network)}
    model = curvature.prediction(network, request)
    neurons = () if whole is None else whole.neurons
    found = Plan(plans, None, model, stats, neurons)
    return found if model is None else replace(found, prediction=_prediction(job, found))


def _one_shot(method: Method, job: Job) -> list[LayerPlan]:
    """All layers on the inputs and the loss of the dense network."""
    return _pruned(method, job, job.quadratics, *_budgets(method, job))


def _sequential(method: Method, job: Job) -> list[LayerPlan]:
    """Each layer, in running order, on the inputs that those pruned before leave.

    Its model is the curvature's on these inputs, with the gradient by which the dense outputs pull. When the
    run is stopped, or its time is up, the layers not reached get what they would in one shot.
    """
    budgets, starts = _budgets(method, job)
    sizes = {i: layer.size for i, layer in enumerate(job.network.layers)}

    def prune(index: int, model: Quadratic) -> LayerPlan | None:
        if job.watch.control.stopped():
            return None
        share = sizes[index] / sum(sizes.values())
        del sizes[index]
        with job.watch.sparing(1.0 - share):
            (plan,) = _pruned(method, job, [model], [budgets[index]], [starts[index]])
        return plan

    assert isinstance(job.curvature, LayerCurvature), "see Method.check"
    found = one_after_another(job.network, job.curvature, prune)
    if rest := sorted(sizes):
        models = [job.quadratics[i] for i in rest]
        late = _pruned(method, job, models, [budgets[i] for i in rest], [starts[i] for i in rest])
        found |= zip(rest, late, strict=True)
    return [found[i] for i in range(len(found))]


def _pruned(
    method: Method,
    job: Job,
    quadratics: Sequence[Quadratic],
    budgets: Sequence[Budget],
    starts: Sequence[Mask | None],
) -> list[LayerPlan]:
    """Select and compensate: a plan for every layer of the models, see `WeightSelection.choose`.

    Models that are kept on disk are gone through one by one, each with its layer's share of the time.
    """
    assert isinstance(method.selection, WeightSelection), "see Method.check"
    plans: list[LayerPlan] = []
    if isinstance(quadratics, OneByOne):
        left = [layer.size for layer in job.network.layers]
        for i, budget in enumerate(budgets):
            with job.watch.sparing(1.0 - left[i] / sum(left[i:])):
                plans += _pruned(method, job, [quadratics[i]], [budget], [starts[i]])
        return plans
    for choice in method.selection.choose(job, quadratics, budgets, starts):
        began = time.perf_counter()
        changes = choice.quadratic.changes(choice.masks, method.compensation.move(choice))
        seconds = (time.perf_counter() - began) / len(changes)
        for change in changes:
            plan = LayerPlan(change, choice.by)
            if choice.solution is not None:
                plan = LayerPlan.solved(change, choice.solution, job.watch, 1 / len(changes))
            plans.append(replace(plan, seconds=plan.seconds + seconds))
    return plans


def _budgets(method: Method, job: Job) -> tuple[list[Budget], list[Mask | None]]:
    """What every model prunes, and masks that meet it where the layers share one budget."""
    layers, request = job.network.layers, job.request
    if not request.pooled:
        return [request.layer_budget(layer) for layer in layers], [None] * len(layers)
    if job.curvature.whole:
        return [Budget.per_layer(request.network_count(layers))], [None]
    dense = [weights.W for weights in job.network.dense]
    assert isinstance(method.selection, WeightSelection), "see Method.check"
    masks = keep_all_out(request, layers, method.selection.share(job), job.network.earlier, dense)
    return [Budget.per_row(mask.sum(axis=1).tolist()) for mask in masks], [*masks]


def _prediction(job: Job, plan: Plan) -> float:
    """The loss increase that the curvature's models predict; rows by their scales, where they need them.

    Models of single layers' outputs leave out dead rows, which feed nothing.
    """
    scales = row_scales(job.network) if job.curvature.scaled else None
    moved = [step.change.weights for step in plan.layers]
    if scales is not None:
        moved = plan.felt(job.network)
    total = 0.0
    for model in job.quadratics:
        damage = model.damage([moved[i] for i in model.index])
        total += float(damage.sum() if scales is None else scales[model.index[0]] @ damage)
    return total
