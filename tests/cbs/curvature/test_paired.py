import copy

import pytest
import torch

from cbs.curvature.paired import paired_moments
from cbs.layers import Layer, find_layers, visiting
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(700)), (convnet, image_samples(12))])
def test_moments_pair_the_inputs_of_both_networks(make, data):
    dense = seeded(make)
    pruned = copy.deepcopy(dense)
    pruned[0].weight.data[:, 0] = 0
    layer = find_layers(dense)[-1]
    twin = Layer(layer.name, pruned.get_submodule(layer.name))
    seen = []
    for model, one in ((dense, layer), (pruned, twin)):
        with visiting([one], lambda name, x, y, one=one: seen.append(one.augmented(x))), torch.no_grad():
            model(data.inputs)
    X, Z = seen
    assert float((X - Z).abs().max()) > 0
    K, C = paired_moments(dense, pruned, (layer, twin), data)
    torch.testing.assert_close(K, Z.T @ Z / len(data), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(C, X.T @ Z / len(data), rtol=1e-11, atol=1e-12)
