import pytest
import torch
from torch import nn

from cbs.network.layers import find_layers
from cbs.network.leaves import Leaves


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 6, 2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)).double()


@pytest.mark.parametrize("across", [False, True])
def test_parts_are_the_layers_own(across):
    from dataclasses import replace

    model = network()
    layers = [replace(layer, across=across) for layer in find_layers(model)]
    leaves = Leaves(layers)
    assert leaves.names == ["0.weight", "3.weight"]
    loss = model(torch.randn(5, 4, 3, 3).double()).square().sum()
    found = torch.autograd.grad(loss, leaves.tensors)
    parts = leaves.parts(found)
    grad = found[0][3:].permute(0, 2, 3, 1) if across else found[0][3:]
    assert torch.equal(parts[1], grad)
    flat = leaves.flat(found)
    assert torch.equal(flat, torch.cat([part.reshape(-1) for part in parts]))
    whole = torch.cat([part.reshape(-1) for part in found])
    assert torch.equal(whole[leaves.index()], flat)
    stacked = leaves.flat([torch.stack([part, 2 * part]) for part in found], over=1)
    assert torch.equal(stacked, torch.stack([flat, 2 * flat]))


def test_of_some_blocks_nothing_else_is_given():
    model = network()
    (layer,) = find_layers(model, ["0[1]"])
    leaves = Leaves([layer])
    assert leaves.tensors[0] is model[0].weight
    (part,) = leaves.parts([torch.arange(48.0).reshape(6, 2, 2, 2)])
    assert torch.equal(part.reshape(-1), torch.arange(24.0, 48.0))
