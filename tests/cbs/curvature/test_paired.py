import copy

import numpy as np
import pytest
import torch
from torch import nn

from cbs.curvature.paired import paired_moments, paired_quadratic
from cbs.network.layers import Layer, find_layers, visiting
from cbs.network.network import Network
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
    ((K, C),) = paired_moments(dense, pruned, [layer], data)
    torch.testing.assert_close(K, Z.T @ Z / len(data), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(C, X.T @ Z / len(data), rtol=1e-11, atol=1e-12)


def test_blocks_of_a_module_have_theirs_in_one_pass():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(2, 4, 2), nn.Conv2d(4, 4, 2, groups=4), nn.Flatten(), nn.Linear(4, 3))
    dense, data = dense.double(), samples(12, (2, 3, 3))
    pruned = copy.deepcopy(dense)
    pruned[0].weight.data[:, 0] = 0
    blocks = find_layers(dense, ["1"])
    together = paired_moments(dense, pruned, blocks, data)
    for block, (K, C) in zip(blocks, together, strict=True):
        ((alone, across),) = paired_moments(dense, pruned, [block], data)
        torch.testing.assert_close(K, alone, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(C, across, rtol=1e-12, atol=1e-14)
    network = Network(dense, data)
    index = [layer.name for layer in network.layers].index("1[2]")
    found = paired_quadratic(network, index, pruned, 0.0)
    torch.testing.assert_close(torch.from_numpy(found.H), together[2][0], rtol=1e-9, atol=1e-12)


class Residual(nn.Module):
    """A network that changes its input, and what its layers were given, in place or not."""

    def __init__(self, in_place):
        super().__init__()
        self.a, self.b, self.in_place = nn.Linear(6, 6).double(), nn.Linear(6, 3).double(), in_place

    def forward(self, x):
        x = x.sub_(1.0) if self.in_place else x - 1.0
        y = torch.tanh(self.a(x))
        x = x.add_(y) if self.in_place else x + y
        z = self.b(x)
        if self.in_place:
            x.zero_()
        return z


def test_moments_of_networks_that_change_things_in_place():
    found = []
    for in_place in (True, False):
        dense, data = seeded(Residual, in_place=in_place), samples(20)
        kept = data.inputs.clone()
        pruned = copy.deepcopy(dense)
        pruned.a.weight.data[:, 0] = 0
        for name in ("a", "b"):
            found += paired_moments(dense, pruned, [Layer(name, dense.get_submodule(name))], data)
        assert torch.equal(data.inputs, kept)
    for one, other in zip(found[:2], found[2:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


class Several(nn.Module):
    """A layer that runs as often as the inputs are long, and one behind it."""

    def __init__(self):
        super().__init__()
        self.step, self.after = nn.Linear(6, 6).double(), nn.Linear(6, 3).double()
        self.ended = 0

    def forward(self, x):
        h = torch.zeros_like(x[:, 0])
        for t in range(x.shape[1]):
            h = torch.tanh(self.step(h + x[:, t]))
        found = self.after(h)
        self.ended += 1
        return found


def test_passes_that_are_broken_off_have_seen_every_run():
    dense = seeded(Several)
    torch.manual_seed(3)
    data = [(torch.randn(5, length, 6).double(), torch.arange(5) % 3) for length in (2, 4, 3)]
    network = Network(dense, data, layers=["step"])
    pruned = copy.deepcopy(network.model)
    pruned.step.weight.data[:, 0] = 0
    layer = network.layers[0]
    (whole,) = paired_moments(network.model, pruned, [layer], network.samples)
    before = pruned.ended
    found = paired_quadratic(network, 0, pruned, 0.0)
    assert pruned.ended == before  # no pass came to the end
    torch.testing.assert_close(torch.from_numpy(found.H), whole[0], rtol=1e-12, atol=1e-12)
    G = found.W @ (whole[0] - whole[1]).numpy()
    np.testing.assert_allclose(found.gradient, G, rtol=1e-10, atol=1e-12)
