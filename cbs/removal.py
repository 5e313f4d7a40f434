"""Whole neurons: from which of them go to what becomes of every layer; structured pruning under masks.

The rows of a neuron that goes, its biases and the columns that it feeds become zero. Once the columns are
zero the rows do nothing, whatever they are: what is lost is what the columns change in the layers that they
feed, and that is what the compensation makes up for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from cbs.change import Change, Weights
from cbs.curvature import Gram
from cbs.method import Method
from cbs.network.evaluate import FEW
from cbs.network.network import Network
from cbs.network.shrink import Removed, tell_stays, tried
from cbs.plan import LayerPlan, Plan
from cbs.selection import Choice, Job, NeuronChoice, NeuronSelection
from solvers import Budget
from solvers.problem import Mask


def remove_neurons(method: Method, job: Job) -> Plan:
    """Choose neurons, and compensate: what becomes of every layer.

    Raises:
        ValueError: if the network has no neurons that can go, or more are gone already than the budget has.
    """
    network, request = job.network, job.request
    groups = network.neurons
    counts = request.neuron_counts(groups, network.gone)
    began = time.perf_counter()
    assert isinstance(method.selection, NeuronSelection), "see Method.check"
    choices = method.selection.choose_neurons(job, groups, counts)
    _require(choices, counts, job)
    _learn(job, choices)
    masks = neuron_masks(network, choices)
    changes: list[Change] = []
    for model in job.quadratics:
        choice = Choice(model, [masks[i] for i in model.index], choices[0].by, neurons=choices)
        changes += model.changes(choice.masks, method.compensation.move(choice))
    seconds = (time.perf_counter() - began) / len(changes)
    plans = []
    for layer, change in zip(network.layers, changes, strict=True):
        feeding = [choice for choice in choices if layer.name in choice.group.columns]
        by = [*dict.fromkeys(choice.by for choice in feeding or choices)]
        plans.append(LayerPlan(change, ", ".join(by), seconds=seconds))
    job.stats["rows_that_stay"] = dict(network.rows_that_stay)
    return silenced(network, Plan(plans, neurons=choices))


def unit_width(network: Network, index: int) -> int:
    """Columns of a neuron in a layer whose columns are one group's, each neuron's neighbours; else 0.

    The choice of neurons is then one of the layer's columns, under `Budget.columns`. Layers that come with
    masks have 0, too.
    """
    layer = network.layers[index]
    feeding = [group for group in network.neurons if layer.name in group.columns]
    if len(feeding) != 1 or network.earlier[index].any():
        return 0
    columns = feeding[0].columns[layer.name]
    units = np.arange(layer.shape[1]).reshape(-1, columns.shape[1])
    return columns.shape[1] if np.array_equal(columns[np.argsort(columns[:, 0])], units) else 0


def _learn(job: Job, choices: Sequence[NeuronChoice]) -> None:
    """Take in what was proven of single layers, for the rows that are left in the end."""
    network, plan = job.network, Plan([], neurons=choices)
    if job.request.pooled or job.curvature != Gram().damped(network.damping):
        return
    for g, choice in enumerate(choices):
        if choice.solution is None or len(choice.group.columns) != 1:
            continue
        (name,) = choice.group.columns
        i = [layer.name for layer in network.layers].index(name)
        dead, later = (p.dead(network.layers[i]) for p in (plan, Plan([], neurons=choices[g + 1 :])))
        if (width := unit_width(network, i)) and (dead == later).all():
            budget = Budget.columns(int(choice.removed.sum()), width)
            job.references.learn_rows(i, budget, ~dead, choice.solution.bound)


def removed(network: Network, model: nn.Module, choices: Sequence[NeuronChoice]) -> list[Removed]:
    """What goes of every group, and whether the network can do without it physically.

    All groups are tried together, and if that fails one after another. Those that stay masked are told of in
    a warning of class `LeftOut`, once for a network.

    Args:
        network: the dense network.
        model: the masked one.
        choices: what goes.
    """
    groups = [_lost(choice) for choice in choices]
    inputs = network.samples.first(FEW)
    if tried(model, groups, inputs) is None:
        return groups
    found: list[Removed] = []
    for group in groups:
        why = tried(model, [*found, group], inputs)
        found.append(replace(group, stays=why))
    network.memo("masks stay", lambda: tell_stays(found))
    return found


def _lost(choice: NeuronChoice) -> Removed:
    group, out = choice.group, choice.removed
    rows, columns, norms = (
        {name: sorted(places[out].ravel().tolist()) for name, places in table.items()}
        for table in (group.rows, group.columns, group.norms)
    )
    return Removed(group.name, group.count, np.flatnonzero(out).tolist(), rows, columns, norms)


def neuron_masks(network: Network, choices: Sequence[NeuronChoice]) -> list[Mask]:
    """`[m, n]` of every layer: the rows of the neurons that go, the columns that they feed, earlier masks."""
    masks = {layer.name: mask.copy() for layer, mask in zip(network.layers, network.earlier, strict=True)}
    for choice in choices:
        for name, rows in choice.group.rows.items():
            masks[name][rows[choice.removed]] = True
        for name, columns in choice.group.columns.items():
            masks[name][:, columns[choice.removed].ravel()] = True
    return list(masks.values())


def silenced(network: Network, plan: Plan) -> Plan:
    """A plan whose dead rows are zero, and their biases, whatever a compensation made of these."""
    return replace(
        plan,
        layers=[
            replace(step, change=_silent(step.change, plan.dead(layer)))
            for layer, step in zip(network.layers, plan.layers, strict=True)
        ],
    )


def _silent(change: Change, dead: Mask) -> Change:
    W = np.where(change.mask | dead[:, None], 0.0, change.weights.W)
    bias = change.weights.bias
    return Change(change.mask, Weights(W, None if bias is None else np.where(dead, 0.0, bias)))


def _require(choices: Sequence[NeuronChoice], counts: Sequence[int] | int, job: Job) -> None:
    """Hold a selection to its budget.

    Raises:
        ValueError: naming the selection.
    """
    taken = [int(choice.removed.sum()) for choice in choices]
    kept = all(k < len(choice.removed) for k, choice in zip(taken, choices, strict=True))
    if not kept or (sum(taken) != counts if isinstance(counts, int) else taken != list(counts)):
        raise ValueError(
            f"method {job.request.name!r} removed {taken} neurons of the groups, asked were {counts} of "
            f"{[choice.group.count for choice in choices]}, and one of each stays"
        )
