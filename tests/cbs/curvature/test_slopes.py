"""The mean gradient, and the rule that multiplies weights with it: against autograd of the mean loss."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import cbs
from cbs.curvature.slopes import mean_gradients
from cbs.network.network import Network
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(70)), (convnet, image_samples(9))])
def test_slopes_are_those_of_the_mean_loss_and_least_products_go(make, data):
    model = seeded(make)
    network = Network(
        model, [(data.inputs[i : i + 8], data.targets[i : i + 8]) for i in range(0, len(data), 8)]
    )
    F.cross_entropy(model(data.inputs), data.targets).backward()
    scores = []
    for layer, found in zip(network.layers, mean_gradients(network), strict=True):
        weight = model.get_parameter(f"{layer.name}.weight")
        np.testing.assert_allclose(found, weight.grad.reshape(layer.shape), rtol=1e-9, atol=1e-12)
        scores.append((weight * weight.grad).abs().detach().flatten())
    result = cbs.prune(model, data, sparsity=0.5, method="sensitivity", certify=False)
    gone = torch.cat([mask.flatten() for mask in result.masks.values()])
    scores = torch.cat(scores)
    assert gone.sum() == round(0.5 * len(gone))
    assert scores[gone].max() < scores[~gone].min()


def test_it_needs_targets():
    assert cbs.methods()["sensitivity"]["needs"] == "inputs, targets"
