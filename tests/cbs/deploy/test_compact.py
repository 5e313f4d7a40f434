import pytest
import torch
from torch import nn

from cbs.deploy.compact import compact
from tests.cbs.networks import Residual, convnet, masked, mlp, seeded


def outputs(model, x):
    with torch.no_grad():
        return model.eval()(x)


def test_neurons_that_feed_nothing_go_and_what_fed_only_them():
    model = seeded(mlp, sizes=(6, 5, 4, 3))
    with torch.no_grad():
        model[4].weight[:, [0, 2]] = 0  # neurons 0 and 2 of the second layer feed nothing ...
        model[2].weight[[1, 3], 4] = 0  # ... and neuron 4 of the first fed no other
    x = torch.randn(9, 6, dtype=torch.float64)
    small, lost = compact(model, x)
    assert {group.name: list(group.neurons) for group in lost} == {"0": [4], "2": [0, 2]}
    assert [tuple(layer.weight.shape) for layer in (small[0], small[2], small[4])] == [(4, 6), (2, 4), (3, 2)]
    torch.testing.assert_close(outputs(small, x), outputs(model, x), rtol=1e-12, atol=1e-12)


def test_constant_neurons_go_into_the_next_bias():
    model = seeded(mlp)
    with torch.no_grad():
        model[0].weight[[1, 3]] = 0
    x = torch.randn(9, 6, dtype=torch.float64)
    small, lost = compact(model, x)
    assert [list(group.neurons) for group in lost] == [[1, 3]]
    moved = model[2].bias + model[2].weight[:, [1, 3]] @ torch.tanh(model[0].bias[[1, 3]])
    torch.testing.assert_close(small[2].bias, moved, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(outputs(small, x), outputs(model, x), rtol=1e-12, atol=1e-12)


def test_constants_stay_where_they_can_not_be_folded():
    model = seeded(mlp)
    model[2].bias = None
    with torch.no_grad():
        model[0].weight[1] = 0
    small, lost = compact(model, torch.randn(9, 6, dtype=torch.float64))
    assert lost == []
    with torch.no_grad():
        model[0].bias[1] = 0
    small, lost = compact(model, torch.randn(9, 6, dtype=torch.float64))
    assert [list(group.neurons) for group in lost] == [[1]]
    assert small[0].out_features == 4


def test_a_padded_convolution_takes_no_constant():
    """At the border it sees zeros, not the constant."""
    make = lambda padding: nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 3, padding=padding)).double()  # noqa: E731
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64)
    for padding, gone in ((0, [[1]]), (1, [])):
        model = seeded(make, padding=padding)
        with torch.no_grad():
            model[0].weight[1] = 0
        small, lost = compact(model, x)
        assert [list(group.neurons) for group in lost] == gone
        torch.testing.assert_close(outputs(small, x), outputs(model, x), rtol=1e-12, atol=1e-12)


def test_one_neuron_of_a_layer_stays():
    model = seeded(mlp)
    with torch.no_grad():
        model[4].weight.zero_()
    x = torch.randn(9, 6, dtype=torch.float64)
    small, _ = compact(model, x)
    assert small[2].out_features == 1
    torch.testing.assert_close(outputs(small, x), outputs(model, x))


@pytest.mark.parametrize(("make", "shape"), [(convnet, (2, 4, 6)), (lambda: Residual().double(), (2, 5, 5))])
def test_masked_networks_keep_their_outputs(make, shape):
    x = torch.randn(5, *shape, dtype=torch.float64)
    for seed in range(3):
        model = masked(seeded(make), 0.9, seed)
        small, _ = compact(model, x)
        torch.testing.assert_close(outputs(small, x), outputs(model, x), rtol=1e-9, atol=1e-12)


class Viewed(nn.Module):
    """A network that counts on its channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.b(self.a(x).view(-1, 4))


def test_a_network_that_counts_its_channels_stays_as_it_is():
    model = seeded(Viewed)
    with torch.no_grad():
        model.b.weight[:, 1] = 0
    small, lost = compact(model, torch.randn(9, 6))
    assert lost == []
    assert small.a.out_features == 4


class Conditional(nn.Module):
    """A sigmoid of what is zero is a half only for inputs of a size, or for so many samples."""

    def __init__(self, by):
        super().__init__()
        self.first, self.last, self.by = nn.Linear(4, 6), nn.Linear(6, 2), by

    def forward(self, x):
        return self.last(torch.sigmoid(self.first(x)) * self.by(x))


@pytest.mark.parametrize(
    ("by", "goes"),
    [
        (lambda x: (x.abs().amax(1, keepdim=True) < 20).to(x), False),
        (lambda x: 1 / len(x), False),
        (lambda x: 1.0, True),
    ],
)
def test_what_is_constant_for_some_inputs_alone_stays(by, goes):
    model = seeded(lambda: Conditional(by)).eval()
    with torch.no_grad():
        model.first.weight[:3] = 0
    small, lost = compact(model, torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    assert bool(lost) == goes
    for x in (torch.randn(8, 4), 100 * torch.randn(8, 4), torch.randn(3, 4)):
        torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-5)
