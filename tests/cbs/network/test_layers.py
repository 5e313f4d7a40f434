import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import cbs
from cbs.change import Weights, layer_weights
from cbs.network.layers import Layer, blocks_of, find_layers, visiting
from cbs.network.network import Network
from cbs.network.surgery import write
from tests.cbs.networks import convnet, mlp, samples, seeded

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


CONVOLUTIONS = [
    lambda: (nn.Conv1d(4, 6, 3, stride=2, padding=1), (4, 7)),
    lambda: (nn.Conv1d(4, 8, 2, groups=4, dilation=2, padding_mode="circular", padding=1), (4, 6)),
    lambda: (nn.Conv2d(4, 6, (3, 2), groups=2, padding="same", bias=False), (4, 5, 4)),
    lambda: (nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="reflect", stride=2), (4, 5, 5)),
    lambda: (nn.Conv3d(2, 4, 2, groups=2, stride=(1, 2, 1), padding=(0, 1, 1)), (2, 3, 4, 3)),
    lambda: (nn.Conv3d(2, 3, (2, 1, 2), dilation=(1, 1, 2)), (2, 3, 2, 4)),
]


@pytest.mark.parametrize("make", CONVOLUTIONS)
@pytest.mark.parametrize("across", [False, True])
def test_a_layer_is_its_modules_matrix(make, across):
    torch.manual_seed(0)
    module, shape = make()
    module = module.double()
    x = torch.randn(3, *shape).double()
    for inputs in (x, x[0]):
        seen = []
        layers = [replace(layer, across=across) for layer in blocks_of("conv", module)]
        with visiting(layers, lambda name, x, y, seen=seen: seen.append((x, y))), torch.no_grad():
            module(inputs)
        assert len(seen) == len(layers) == module.groups
        for layer, (z, y) in zip(layers, seen, strict=True):
            W = layer.weight.detach().reshape(layer.shape)
            found = layer.unfold(z) @ W.T + (0 if layer.bias is None else layer.bias.detach())
            torch.testing.assert_close(found, layer.flatten(y), rtol=1e-12, atol=1e-12)
            ran = layer.convolve(z, layer.weight.detach(), layer.bias)
            torch.testing.assert_close(layer.flatten(ran.detach()), layer.flatten(y), rtol=1e-12, atol=1e-12)
            assert float(layer.energy(z)) == pytest.approx(float(layer.unfold(z).square().sum()), rel=1e-12)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("make", CONVOLUTIONS)
def test_grams_of_blocks_are_those_of_their_patches(make, across):
    torch.manual_seed(0)
    module, shape = make()
    model = nn.Sequential(module.double(), nn.Flatten(), nn.LazyLinear(3).double())
    data = samples(5, shape)
    model(data.inputs)
    network = Network(model, data, damping=0.0, across=across, layers=["0"])
    for layer, quadratic in zip(network.layers, network(cbs.Gram()), strict=True):
        X = layer.augmented(layer.inputs_of(data.inputs))
        np.testing.assert_allclose(quadratic.H, X.T @ X / 5, rtol=1e-11, atol=1e-12)


def test_writing_through_a_view_reaches_the_module():
    module = nn.Conv2d(4, 4, 2, groups=2)
    for layer in (replace(layer, across=True) for layer in blocks_of("conv", module)):
        W = np.arange(layer.size, dtype=float).reshape(layer.shape) + 100 * layer.block
        write(layer, Weights(W, np.full(2, layer.block)))
        assert (layer_weights(layer).W == W).all()
        # columns go by place of the kernel, then channel
        assert module.weight[layer.block * 2, 1, 0, 1].item() == W[0, 1 * 2 + 1]
    assert module.bias.tolist() == [0, 0, 1, 1]


def test_two_of_four_along_channels_is_the_best_there_is():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 2, (1, 2)), nn.Flatten(), nn.Linear(4, 3)).double()
    data = samples(40, (4, 1, 3))
    result = cbs.prune(model, data, budget="2:4", method="joint", layers=["0"])
    network = Network(model, data, layers=["0"])
    H, (n,) = network(cbs.Gram())[0].H, (8,)
    costs = []
    for row in model[0].weight.detach().reshape(2, n).numpy():
        best = np.inf
        for first, second in itertools.product(itertools.combinations(range(4), 2), repeat=2):
            gone = [2 * c for c in first] + [2 * c + 1 for c in second]  # two channels at either place
            block = np.linalg.inv(H)[np.ix_(gone, gone)]
            best = min(best, 0.5 * row[gone] @ np.linalg.solve(block, row[gone]))
        costs.append(best)
    assert result.value == pytest.approx(sum(costs), rel=1e-6)
    assert result.status == "optimal"


def mobile():
    """A network as MobileNet's: depthwise and pointwise convolutions."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4),
        nn.ReLU(), nn.Conv2d(4, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    ).double().eval()  # fmt: skip


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "magnitude"}, {"method": "obd"}, {"method": "obs"}, {"method": "obd-exact"},
        {"method": "obd-recursion"}, {"method": "elimination"}, {"method": "wanda", "scope": "row"},
        {"method": "joint", "scope": "row", "pipeline": "sequential"},
        {"method": "joint", "refit": "network", "solver": "greedy"},
    ],
    ids=str,
)  # fmt: skip
def test_a_depthwise_network_is_pruned_by_every_kind_of_method(asked):
    data = samples(100, (2, 5, 5))
    result = cbs.prune(mobile(), data, sparsity=0.5, certify=False, **asked)
    assert [layer.name for layer in result.layers] == ["0", "2[0]", "2[1]", "2[2]", "2[3]", "5", "8"]
    assert set(result.masks) == {"0", "2", "5", "8"}
    assert result.masks["2"].shape == (4, 1, 3, 3)
    pruned = result.permanent()
    for name, mask in result.masks.items():
        weight = pruned.get_submodule(name).weight
        assert not weight[mask].any()
        assert bool(weight[~mask].ne(0).all())
    assert result.sparsity == pytest.approx(0.5, abs=0.02)
    loss = nn.functional.cross_entropy(pruned(data.inputs), data.targets)
    assert loss.item() == pytest.approx(result.after.loss, rel=1e-9)


def test_blocks_that_come_with_a_mask_keep_it():
    model, data = mobile(), samples(60, (2, 5, 5))
    first = cbs.prune(model, data, sparsity=0.4, method="magnitude", scope="row", certify=False)
    again = cbs.prune(
        first.model, data, sparsity=0.7, method="joint", scope="row", layers=["2"], certify=False
    )
    assert bool(again.masks["2"][first.masks["2"]].all())
    assert torch.equal(again.model[5].weight, first.model[5].weight)
