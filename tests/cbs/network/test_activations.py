"""Batches that fit into memory."""

import pytest
import torch
from torch import nn

from cbs.data import Samples, gather
from cbs.memory import limited
from cbs.network.activations import fitting, largest, sample_bytes
from cbs.network.layers import find_layers


def network(width=32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4)).eval()


def data(count=64):
    return Samples(torch.randn(count, 8), torch.zeros(count, dtype=torch.long))


def test_what_a_sample_takes_is_what_autograd_saves_of_it():
    model = network()
    found = sample_bytes(model, find_layers(model), data())
    saved = 8 + 32  # the inputs of both layers; ReLU keeps its output, which is the second's input
    assert found == 4 * (saved + 2 * (32 + 4))


def test_a_network_without_gradients_is_measured_by_its_modules_outputs():
    class Rounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            if torch.is_grad_enabled():
                raise RuntimeError("only for inference")
            return self.inner(x)

    model = Rounded()
    assert sample_bytes(model, find_layers(model), data()) == 4 * (32 + 32 + 4)


def test_batches_are_cut_to_the_share_of_the_limit():
    model, samples = network(width=2**16), data()
    each = sample_bytes(model, find_layers(model), samples)
    with limited(1 / 32):
        cut = fitting(model, find_layers(model), samples)
        assert cut.batch < 20
        assert cut.batch * each <= 2**30 / 32
        assert next(len(x) for x, _ in cut.batches()) == cut.batch
    with limited(2.0):
        assert fitting(model, find_layers(model), samples) is samples


def test_a_sample_too_large_is_refused_in_one_line():
    model = network(width=2**21)
    with (
        limited(1 / 64),
        pytest.raises(ValueError, match=r"single sample take 0\.\d+ GiB.*give `memory` more"),
    ):
        fitting(model, find_layers(model), data(2))


def test_the_longest_of_several_lengths_is_measured():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    batches = [(torch.randn(6, length, 4), torch.randn(6, length, 2)) for length in (3, 50, 7)]
    samples = gather(batches)
    assert largest(samples).shape == (2, 50, 4)
    assert sample_bytes(model, find_layers(model), samples) == 50 * 4 * (4 + 8 + 2 * (8 + 2))
