import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from cbs.curvature import gram
from cbs.curvature.gram import layer_grams
from cbs.data import Samples
from cbs.network.layers import Layer, find_layers
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def oracle(layer, x):
    """Hessian of half the mean squared output by the weights and bias of a layer, from autograd."""
    m, n = layer.shape
    shape, bias = layer.module.weight.shape, layer.module.bias

    def energy(v):
        parameters = {"weight": v[:, :n].reshape(shape)}
        if bias is not None:
            parameters["bias"] = v[:, n]
        return 0.5 * functional_call(layer.module, parameters, (x,)).square().sum() / len(x)

    v = torch.zeros(m, n + (bias is not None), dtype=torch.float64)
    return jacrev(jacrev(energy))(v)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("make", "data"), [(mlp, samples(700)), (convnet, image_samples(12))])
def test_grams_are_the_hessian_of_the_output_error(make, data, bias):
    model = seeded(make, bias=bias)
    layers = find_layers(model)
    inputs = {}
    handles = [
        layer.module.register_forward_pre_hook(
            lambda m, a, name=layer.name: inputs.update({name: a[0].clone()})
        )
        for layer in layers
    ]
    model(data.inputs)
    for handle in handles:
        handle.remove()
    grams = layer_grams(model, layers, data)
    assert list(grams) == [layer.name for layer in layers]
    for layer in layers:
        H = oracle(layer, inputs[layer.name])
        m = layer.shape[0]
        for r in range(m):
            for s in range(m):
                expected = grams[layer.name] if r == s else torch.zeros_like(grams[layer.name])
                torch.testing.assert_close(H[r, :, s], expected, rtol=1e-10, atol=1e-10)


def test_single_precision_networks_have_double_grams():
    data = samples(30, dtype=torch.float32)
    model = seeded(mlp, dtype=torch.float32)
    grams = layer_grams(model, find_layers(model), data)
    X = data.inputs.double()
    assert grams["0"].dtype == torch.float64
    torch.testing.assert_close(grams["0"][:-1, :-1], X.T @ X / 30, rtol=1e-13, atol=1e-13)


def test_a_layer_that_runs_twice_counts_both_runs():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3, bias=False).double()

        def forward(self, x):
            return self.fc(torch.tanh(self.fc(x)))

    model, data = seeded(Twice), samples(20, (3,))
    gram = layer_grams(model, find_layers(model), data)["fc"]
    Z = torch.tanh(model.fc(data.inputs))
    expected = (data.inputs.T @ data.inputs + Z.T @ Z) / 20
    torch.testing.assert_close(gram, expected.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(50)), (convnet, image_samples(12))])
def test_grams_do_not_depend_on_how_inputs_are_parted(make, data, monkeypatch):
    model = seeded(make)
    layers = find_layers(model)
    whole = layer_grams(model, layers, data)
    monkeypatch.setattr("cbs.network.layers.CHUNK", 100)
    parted = layer_grams(model, layers, data)
    for name, H in whole.items():
        torch.testing.assert_close(parted[name], H, rtol=1e-12, atol=1e-12)


CONVOLUTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": (5, 2), "padding": (2, 0), "dilation": (1, 2)},
    {"kernel_size": (2, 3), "padding": "same", "dilation": 2, "padding_mode": "reflect"},
    {"kernel_size": 3, "dilation": 3, "padding": 3, "padding_mode": "circular"},
    {
        "kernel_size": (3, 4),
        "stride": (3, 2),
        "dilation": (2, 1),
        "padding": (4, 3),
        "padding_mode": "replicate",
    },
    {"kernel_size": (7, 7)},
    {"kernel_size": (6, 7), "padding": (0, 2)},
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_grams_of_images_are_those_of_their_patches(options, bias, monkeypatch):
    layer = Layer("conv", seeded(lambda: nn.Conv2d(3, 2, bias=bias, **options).double()))
    data = samples(9, (3, 7, 8))
    X = layer.augmented(data.inputs)
    assert len(X) == layer.flatten(layer.module(data.inputs)).shape[0]
    for chunk in (1, 500, 2**20):
        monkeypatch.setattr(gram, "CHUNK", chunk)
        found = gram.layer_grams(layer.module, [layer], data)["conv"]
        torch.testing.assert_close(found, X.T @ X / 9, rtol=1e-12, atol=1e-13)


def test_runs_of_no_sample_count_for_nothing():
    """As of an expert to which none is sent: one that is sent none at all has no Gram."""

    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.some, self.none = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            out = torch.zeros(len(x), 2)
            for layer, sent in ((self.some, x[:, 0] > 0), (self.none, x[:, 0] > 99)):
                out[sent] = layer(x[sent])
            return out

    model = seeded(Experts).eval()
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    x[:4, 0] = -1.0
    found = layer_grams(model, find_layers(model), Samples(x, None, 4))
    assert list(found) == ["some"]
    Z = torch.nn.functional.pad(x[x[:, 0] > 0].double(), (0, 1), value=1.0)
    torch.testing.assert_close(found["some"], Z.T @ Z / 8)
