import numpy as np
import pytest

import cbs
from cbs.diagnosis.masking import prepared, run_once
from cbs.network.network import Network
from cbs.request import Request
from tests.cbs.networks import mlp, samples, seeded


@pytest.mark.parametrize("method", ["magnitude", "wanda", "obc", "joint"])
def test_masks_are_those_of_a_cheap_pruning(method):
    model, data = seeded(mlp), samples(60)
    request = prepared(Request(0.6, method=method, samples=30, seed=3))
    assert not request.certify
    plan = run_once(Network(model, data, samples=30, seed=3), request)
    result = cbs.prune(
        model, data, sparsity=0.6, method=method, samples=30, seed=3, certify=False, solver="greedy"
    )
    for layer, step in zip(result.layers, plan.layers, strict=True):
        assert np.array_equal(step.change.mask, result.masks[layer.name].numpy())


def test_neurons_are_what_their_methods_prune():
    assert prepared(Request(0.5, method="neuron-joint")).neurons
    assert not prepared(Request(0.5, method="magnitude")).neurons
    assert prepared(Request(0.5, method="magnitude", granularity="neurons")).neurons


def test_what_follows_a_pruning_is_refused():
    for more in ({"stages": 2}, {"finetune": 1}, {"refit": "network"}):
        with pytest.raises(ValueError, match="this is about one pruning; drop stages, finetune"):
            prepared(Request(0.5, **more))
    with pytest.raises(ValueError, match="sparsegpt"):
        prepared(Request(0.5, method="sparsegpt", budget="columns"))
