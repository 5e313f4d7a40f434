import copy

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import cbs
from cbs.network.network import Network
from cbs.request import Request
from cbs.selection.neuron_dropout import Dropped, NeuronDropout, regress
from cbs.watch import Watch
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def linear_loss(outputs, targets):
    return outputs[:, 0]


def mean_output(model, inputs):
    with torch.no_grad():
        return float(model(inputs)[:, 0].mean())


def ablated(model, name, columns):
    """A copy of a network without some columns of a layer."""
    copied = copy.deepcopy(model)
    weight = copied.get_submodule(name).weight
    with torch.no_grad():
        weight.view(len(weight), -1)[:, list(columns)] = 0.0
    return copied


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(30)), (convnet, image_samples(30))])
def test_where_the_loss_adds_up_coefficients_are_the_ablation_damages(make, data):
    """Of one hidden layer under a loss that is linear in the outputs."""
    model = seeded(make)
    network = Network(model, data, loss=linear_loss)
    group = network.neurons[-1]
    (name,) = group.columns
    found = NeuronDropout(masks=40).damage(network, [group], seed=0)
    whole = mean_output(model, data.inputs)
    each = [
        mean_output(ablated(model, name, columns), data.inputs) - whole for columns in group.columns[name]
    ]
    np.testing.assert_allclose(found.coefficients[0], each, atol=1e-9)
    assert found.intercept == pytest.approx(whole, abs=1e-9)
    assert found.explained == pytest.approx(1.0)
    assert (found.errors[0] < 1e-9).all()


def test_a_dropped_network_is_the_ablated_one():
    model, data = seeded(convnet), image_samples(20)
    network = Network(model, data)
    groups = network.neurons
    drop = np.zeros(sum(group.count for group in groups), dtype=bool)
    drop[[0, 4]] = True
    other = model
    for group, gone in zip(groups, np.split(drop, [groups[0].count]), strict=True):
        for name, columns in group.columns.items():
            other = ablated(other, name, columns[gone].ravel())
    loss = float(nn.functional.cross_entropy(other(data.inputs), data.targets).detach())
    assert Dropped(network, groups, 0).loss_without(drop) == pytest.approx(loss, rel=1e-9)


def test_ranks_follow_single_ablations_on_digits():
    model, split = cbs.trained_digits_mlp()
    network = Network(model, split.train, samples=300)
    groups = network.neurons
    found = NeuronDropout(masks=400).damage(network, groups, seed=0)
    dropped = Dropped(network, groups, 0)
    each = [dropped.loss_without(np.arange(48) == i) for i in range(48)]
    rank = spearmanr(np.concatenate(found.coefficients), each).statistic
    assert rank > 0.7


def test_standard_errors_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    drops, b = rng.random((200, 5)) < 0.3, np.array([0.1, 0.2, 0.0, -0.1, 0.5])
    tries = [regress(drops, 1.0 + drops @ b + 0.1 * rng.normal(size=200), [2, 3]) for _ in range(300)]
    values = np.array([np.concatenate(found.coefficients) for found in tries])
    errors = np.array([np.concatenate(found.errors) for found in tries])
    np.testing.assert_allclose(values.std(axis=0), errors.mean(axis=0), rtol=0.15)
    np.testing.assert_allclose(values.mean(axis=0), b, atol=0.01)


def test_too_few_masks_have_no_errors():
    found = regress(np.eye(4, dtype=bool)[:3], np.array([1.0, 2.0, 3.0]), [4])
    assert np.isinf(found.errors[0]).all()
    assert found.stats()["median_error"] is None
    assert regress(np.zeros((0, 4), dtype=bool), np.zeros(0), [4]).masks == 0


@pytest.mark.parametrize("scope", ["layer", "network"])
def test_the_least_coefficients_go(scope):
    model, split = cbs.trained_digits_mlp()
    result = cbs.prune(
        model, split.train, method="neuron-dropout", sparsity=0.5, scope=scope, certify=False, samples=300
    )
    removed = [len(group.neurons) for group in result.neurons]
    assert sum(removed) == 24
    assert scope == "network" or removed == [16, 8]
    assert result.history[0].stats["dropout"]["masks"] == 256
    assert result.history[0].stats["dropout"]["median_error"] > 0


def test_stopped_it_takes_the_masks_it_has():
    model, split = cbs.trained_digits_mlp()
    told = []
    result = cbs.prune(
        model, split.train, method="neuron-dropout", sparsity=0.5, samples=200, certify=False,
        callback=lambda step: step.stage == "select" and told.append(step) is None and len(told) > 3,
    )  # fmt: skip
    assert result.status == "interrupted"
    assert 0 < result.history[0].stats["dropout"]["masks"] < 256
    assert sum(len(group.neurons) for group in result.neurons) == 24


def test_what_a_limit_cut_short_is_not_kept_for_later():
    model, data = seeded(mlp), samples(30)
    network = Network(model, data)
    watch = Watch("neuron-dropout", Request(0.5, time_limit=1e-9), len(network.layers), None)
    watch.resume()
    assert NeuronDropout().damage(network, network.neurons, 0, watch).masks < 256
    assert NeuronDropout().damage(network, network.neurons, 0).masks == 256


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fraction": 0}, "fraction must lie between 0 and 1, got 0"),
        ({"fraction": True}, "fraction must lie between 0 and 1, got True"),
        ({"masks": 1}, "masks must be at least 2 or None, and whole, got 1"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(ValueError) as error:
        NeuronDropout(**fields)
    assert str(error.value) == message
