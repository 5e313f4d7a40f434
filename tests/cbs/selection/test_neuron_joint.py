import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import cbs
from cbs.methods import get_method
from cbs.network.network import Network
from cbs.selection.neuron_joint import NeuronSolve, columns_problem
from solvers import solve
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded
from tests.cbs.selection.test_neuron_merge import PLAIN, flattened, inputs_of, one_hidden


class Residual(nn.Module):
    """Hidden channels that are one group over a residual sum, and feed two layers of unlike kernels."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 4, 1)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        h = torch.relu(self.a(x))
        h = torch.relu(h + self.norm(self.b(h)))
        return self.out(h.mean(dim=(2, 3)))


def residual():
    return Residual().double().eval()


def setting(make, data):
    network = Network(seeded(make), data)
    return network, {model.name: model for model in network(PLAIN)}


def least_squares(network, group, gone, dead):
    """What measured outputs of the layers that a group feeds lose, at best, without some neurons."""
    lost = 0.0
    for name, columns in group.columns.items():
        layer = next(layer for layer in network.layers if layer.name == name)
        X = inputs_of(network, name)
        live = [r for r in range(layer.shape[0]) if not (dead and name in group.rows and r in gone)]
        W = layer.module.weight.detach().flatten(1).numpy()[live]
        pruned = columns[list(gone)].ravel()
        left = X[:, [j for j in range(X.shape[1]) if j not in set(pruned.tolist())]]
        pull = X[:, pruned] @ W[:, pruned].T
        pull = pull - left @ np.linalg.lstsq(left, pull, rcond=1e-11)[0]
        lost += 0.5 * float((pull**2).sum()) / len(network.samples)
    return lost


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (one_hidden, samples(60)),
        (flattened, image_samples(60)),
        (residual, image_samples(60)),
        (convnet, image_samples(60)),
        (partial(convnet, bias=False), image_samples(60)),
    ],
)
def test_the_problem_is_least_squares_on_measured_outputs(make, data):
    network, models = setting(make, data)
    for group in network.neurons:
        problem = columns_problem(group, models, 2, np.zeros(group.count, dtype=bool), {})
        for gone in itertools.combinations(range(group.count), 2):
            mask = np.zeros(problem.W.shape, dtype=bool)
            mask[:, problem.prunable] = np.repeat(np.isin(np.arange(group.count), gone), problem.pools.width)
            expected = least_squares(network, group, gone, dead=False)
            assert problem.value(mask) == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("make", [flattened, residual])
def test_a_neuron_that_feeds_several_columns_is_one_unit(make):
    network, models = setting(make, image_samples(60))
    (group,) = network.neurons
    width = sum(columns.shape[1] for columns in group.columns.values())
    assert width == (6 if make is flattened else 10)
    problem = columns_problem(group, models, 2, np.zeros(4, dtype=bool), {})
    best = min(least_squares(network, group, gone, False) for gone in itertools.combinations(range(4), 2))
    for solver in ("auto", "osscar", "local-search", "brute-force"):
        assert solve(problem, solver).value == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize(("make", "data"), [(one_hidden, samples(60)), (residual, image_samples(60))])
@pytest.mark.parametrize("method", ["neuron-joint", "neuron-osscar"])
def test_pruning_a_group_is_measured_as_it_was_solved(make, data, method):
    model = seeded(make)
    own = get_method(method)
    plain = cbs.Method(PLAIN, own.selection, own.compensation, name="plain")
    result = cbs.prune(model, data, method=plain, sparsity=0.5, scope="layer", damping=1e-9, certify=False)
    (told,) = result.history[0].stats["neurons"].values()
    network, _ = setting(make, data)
    (group,) = network.neurons
    (gone,) = (tuple(found.neurons) for found in result.neurons)
    assert told["value"] == pytest.approx(least_squares(network, group, gone, False), rel=1e-5)
    fed = [layer for layer in result.layers if layer.name in group.columns]
    dead = least_squares(network, group, gone, True)
    assert sum(layer.measured for layer in fed) == pytest.approx(dead, rel=1e-5)
    if method == "neuron-joint":
        assert told["status"] == "optimal"
        assert told["bound"] <= told["value"]


def test_rows_of_neurons_that_go_cost_nothing():
    network, models = setting(mlp, samples(60))
    group = network.neurons[0]
    none = np.zeros(group.count, dtype=bool)
    dead = {"2": np.array([True, False, True, False])}
    whole, part = (columns_problem(group, models, 2, none, each) for each in ({}, dead))
    mask = np.zeros(whole.W.shape, dtype=bool)
    mask[:, [1, 3]] = True
    assert part.value(mask[:2]) == pytest.approx(whole.row_values(mask)[[1, 3]].sum())


def test_it_costs_less_than_every_other_selection_on_digits():
    model, split = cbs.trained_digits_mlp()
    values = {
        name: cbs.prune(
            model, split.train, method=name, granularity="neurons", sparsity=0.5, certify=False
        ).value
        for name in ("neuron-joint", "neuron-osscar", "neuron-merge", "neuron-dropout", "wanda")
    }
    assert values["neuron-joint"] <= 1.02 * values["neuron-osscar"]
    assert values["neuron-joint"] < min(values[name] for name in ("neuron-merge", "neuron-dropout", "wanda"))


def test_neurons_that_are_gone_are_counted_once():
    model, data = seeded(one_hidden), samples(60)
    first = cbs.prune(model, data, method="neuron-joint", sparsity=0.2, certify=False)
    again = cbs.prune(first.model, data, method="neuron-joint", sparsity=0.6, certify=False)
    assert len(again.neurons[0].neurons) == 3
    assert set(first.neurons[0].neurons) <= set(again.neurons[0].neurons)


def test_a_solver_that_does_no_columns_is_refused():
    with pytest.raises(ValueError, match="solver 'swapping' does not do columns in the joint variant"):
        cbs.prune(
            seeded(mlp), samples(40), method="neuron-joint", sparsity=0.4, scope="layer", solver="swapping"
        )


def test_it_takes_a_gram():
    with pytest.raises(ValueError, match=r"NeuronSolve weighs columns.* takes Gram\(\), not identity"):
        cbs.Method(cbs.Identity(), NeuronSolve(), cbs.Nothing())
