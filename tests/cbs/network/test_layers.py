import copy

import pytest
import torch
from torch import nn

from cbs.network.layers import Layer, find_layers, visiting
from tests.cbs.networks import convnet, mlp, seeded

CONVS = {
    "plain": {"kernel_size": 3},
    "rectangular": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 2)},
    "dilated": {"kernel_size": 2, "dilation": (2, 1), "padding": 1},
    "same": {"kernel_size": (2, 3), "padding": "same"},
    "circular": {"kernel_size": 3, "padding": 2, "padding_mode": "circular"},
    "reflected": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect", "stride": 2},
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("options", CONVS.values(), ids=CONVS)
@pytest.mark.parametrize("bias", [True, False])
def test_unfolded_inputs_times_weights_are_the_outputs(options, bias):
    conv = seeded(nn.Conv2d, in_channels=2, out_channels=5, bias=bias, **options).double()
    x = torch.randn(3, 2, 7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer = Layer("conv", conv)
    W = conv.weight.reshape(layer.shape)
    V = W if conv.bias is None else torch.cat([W, conv.bias[:, None]], dim=1)
    torch.testing.assert_close(layer.augmented(x) @ V.T, layer.flatten(conv(x)), rtol=1e-12, atol=1e-12)


def test_linear_layers_take_any_number_of_positions():
    layer = Layer("fc", seeded(nn.Linear, in_features=4, out_features=3).double())
    x = torch.arange(24, dtype=torch.float64).reshape(2, 3, 4)
    assert layer.shape == (3, 4)
    assert layer.unfold(x).shape == (6, 4)
    torch.testing.assert_close(layer.flatten(layer.module(x)), layer.module(layer.unfold(x)))


def test_layers_are_found_in_order():
    assert [layer.name for layer in find_layers(seeded(convnet))] == ["0", "3", "6"]
    assert [layer.name for layer in find_layers(seeded(convnet), ["6", "0"])] == ["0", "6"]


def test_every_group_of_a_convolution_is_a_layer():
    model = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 2, 1))
    assert [layer.name for layer in find_layers(model)] == ["0[0]", "0[1]", "1"]
    assert [layer.name for layer in find_layers(model, ["1", "0[1]"])] == ["0[1]", "1"]
    assert [layer.name for layer in find_layers(model, ["0"])] == ["0[0]", "0[1]"]
    with pytest.raises(ValueError, match=r"layers: '0\[2\]' names no prunable layer"):
        find_layers(model, ["0[2]"])


def nan_model():
    model = seeded(mlp)
    model[2].weight.data[0, 0] = float("nan")
    return model


def tied_model():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("model", "names", "message"),
    [
        (nn.Sequential(nn.ReLU()), None, "model Sequential has no prunable layer"),
        (nn.Bilinear(4, 4, 2), None, "model Bilinear has no prunable layer"),
        (mlp(), ["0", "1"], "layers: '1' names no prunable layer; there are 0, 2, 4"),
        (mlp(), [], "layers: an empty list"),
        (nan_model(), None, "layer '2' has a NaN or infinite weight"),
        (tied_model(), None, "layers '0' and '1' share one weight"),
    ],
)
def test_what_cannot_be_pruned_is_refused(model, names, message):
    with pytest.raises(ValueError, match=message) as error:
        find_layers(model, names)
    assert "\n" not in str(error.value)


def test_visits_see_pre_activations_and_may_replace_them():
    model = seeded(convnet)
    twin = copy.deepcopy(model)
    x = torch.randn(2, 2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seen = []

    def visit(name, inputs, output):
        seen.append((name, inputs, output))
        return output.clone()

    with visiting(find_layers(model), visit), torch.no_grad():
        y = model(x)
    assert torch.equal(y, twin(x))
    assert [name for name, _, _ in seen] == ["0", "3", "6"]
    assert torch.equal(seen[0][2], twin[0](x))
    model(x)
    assert len(seen) == 3
