import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cbs.network.network import Network
from cbs.selection import trial as module
from cbs.selection.trial import Trial
from tests.cbs.networks import convnet, image_samples, seeded


def test_trials_measure_the_masked_network_and_keep_masks_until_new_ones(rng):
    model, data = seeded(convnet), image_samples()
    network = Network(model, data)
    trial = Trial(network, 0)
    masks = [rng.random(layer.shape) < 0.5 for layer in network.layers]

    def expected(used):
        twin = copy.deepcopy(model)
        for layer, mask in zip(network.layers, used, strict=True):
            weight = twin.get_submodule(layer.name).weight
            weight.data[torch.from_numpy(mask).reshape(weight.shape)] = 0
        return float(F.cross_entropy(twin(data.inputs), data.targets).detach())

    none = [np.zeros_like(mask) for mask in masks]
    assert trial([0], masks[:1]) == pytest.approx(expected([masks[0], *none[1:]]), rel=1e-12)
    assert trial([1, 2], masks[1:]) == pytest.approx(expected(masks), rel=1e-12)
    assert trial([0], none[:1]) == pytest.approx(expected([none[0], *masks[1:]]), rel=1e-12)


def test_trials_use_a_sample(monkeypatch):
    monkeypatch.setattr(module, "SAMPLES", 5)
    assert len(Trial(Network(seeded(convnet), image_samples()), 0).samples) == 5
