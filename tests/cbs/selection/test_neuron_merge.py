import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import cbs
from cbs.network.network import Network
from cbs.selection.neuron_merge import Feed, Merging
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

PLAIN = cbs.Gram(damping=0.0)


def one_hidden():
    return mlp(sizes=(6, 5, 3))


def flattened():
    """One hidden layer of channels, each of which feeds a map of six places."""
    return (
        nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24, 3),
        )
        .double()
        .eval()
    )


def inputs_of(network, name):
    """`[positions, n + 1]` a layer's inputs with a last column of ones, a sample's positions summed over."""
    layer = next(layer for layer in network.layers if layer.name == name)
    seen = []
    handle = layer.module.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    with torch.no_grad():
        network.model(network.samples.inputs)
    handle.remove()
    return layer.augmented(seen[0]).numpy()


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(60)), (convnet, image_samples(60))])
def test_a_pairs_cost_is_least_squares_on_measured_activations(make, data):
    network = Network(seeded(make), data)
    models = {model.name: model for model in network(PLAIN)}
    for group in network.neurons:
        (name,) = group.columns
        X, W = inputs_of(network, name), models[name].W
        merging = Merging(group, models, np.zeros(group.count, dtype=bool))
        for i, j in itertools.permutations(range(group.count), 2):
            lost = X[:, group.columns[name][i]] @ W[:, group.columns[name][i]].T
            basis = X[:, [*group.columns[name][j], -1]]
            left = lost - basis @ np.linalg.lstsq(basis, lost, rcond=None)[0]
            cost = 0.5 * float((left**2).sum()) / len(data)
            assert merging.costs[i, j] == pytest.approx(cost, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (one_hidden, samples(60)),
        (flattened, image_samples(60)),
        (partial(mlp, sizes=(6, 5, 3), bias=False), samples(60)),
    ],
)
def test_one_merge_is_measured_as_it_was_priced(make, data):
    """Through `prune`: the layer's output moves by the cost of its one merge."""
    model = seeded(make)
    method = cbs.Method(PLAIN, cbs.NeuronMerge(), cbs.Merged(), name="merge")
    network = Network(model, data)
    (group,) = network.neurons
    merging = Merging(group, {m.name: m for m in network(PLAIN)}, np.zeros(group.count, dtype=bool))
    cost, i, _ = merging.cheapest
    result = cbs.prune(model, data, method=method, sparsity=1.01 / group.count, damping=1e-9, certify=False)
    assert result.neurons[0].neurons == [i]
    assert result.layers[1].measured == pytest.approx(cost, rel=1e-5)


def test_twins_are_merged_for_nothing():
    model = seeded(one_hidden)
    with torch.no_grad():
        for values in (model[0].weight, model[0].bias):
            values[3] = values[1]
    data = samples(60)
    before = model(data.inputs)
    result = cbs.prune(model, data, method="neuron-merge", sparsity=0.2, damping=1e-9, certify=False)
    assert result.neurons[0].neurons in ([1], [3])
    assert torch.allclose(result.model(data.inputs), before, atol=1e-6)


def test_refitting_all_survivors_costs_no_more():
    model, split = cbs.trained_digits_mlp()
    every = cbs.Method(cbs.Gram(), cbs.NeuronMerge(), cbs.Survivors(), name="all")
    alone, refitted = (
        cbs.prune(model, split.train, method=method, sparsity=0.5, scope="layer", certify=False)
        for method in ("neuron-merge", every)
    )
    assert alone.neurons == refitted.neurons
    assert refitted.value < alone.value


@pytest.mark.parametrize("scope", ["layer", "network"])
def test_it_beats_pruning_by_magnitude_on_digits(scope):
    model, split = cbs.trained_digits_mlp()
    results = [
        cbs.prune(model, split.train, method=method, granularity="neurons", sparsity=0.5, scope=scope,
                  certify=False)
        for method in ("neuron-merge", "magnitude")
    ]  # fmt: skip
    assert results[0].value < 0.5 * results[1].value
    assert [sum(len(group.neurons) for group in result.neurons) for result in results] == [24, 24]


def test_dead_neurons_merge_with_anything():
    model = seeded(one_hidden)
    data = samples(60)
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0.0, 0.0
    result = cbs.prune(model, data, method="neuron-merge", sparsity=0.2, certify=False)
    assert result.neurons[0].neurons == [2]


def test_across_a_normalisation_that_mixes_neurons_it_is_refused():
    model = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 3)).double()
    with pytest.raises(ValueError, match=r"no neuron that can be removed .*LayerNorm"):
        cbs.prune(model, samples(40), method="neuron-merge", sparsity=0.4)


def test_it_takes_a_gram():
    with pytest.raises(
        ValueError, match=r"NeuronMerge fits outputs of neurons.* takes Gram\(\), not identity"
    ):
        cbs.Method(cbs.Identity(), cbs.NeuronMerge(), cbs.Nothing())


def test_a_feed_follows_its_merges():
    network = Network(seeded(mlp), samples(60))
    model = network(PLAIN)[1]
    columns = network.neurons[0].columns["2"]
    feed = Feed(model, columns)
    feed.merge(0, 1)
    assert not feed.W[0].any()
    S = np.linalg.inv(np.linalg.inv(model.H)[:-1, :-1])  # the bias eliminated
    expected = model.W[:, 1] + model.W[:, 0] * S[0, 1] / S[1, 1]
    np.testing.assert_allclose(feed.W[1][:, 0], expected, rtol=1e-8)
