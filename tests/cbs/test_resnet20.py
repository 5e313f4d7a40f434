"""ResNet20 on CIFAR-10, in the folder that CBS_DATA names: the sizes that small networks do not have."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import cbs
from cbs.curvature.output import row_scales
from cbs.deploy.sparse import compiled
from cbs.network.evaluate import output_changes
from cbs.network.network import Network
from cbs.zoo import trained


@pytest.fixture(scope="module")
def resnet20():
    """The trained network, a thousand training images and a thousand test images, in -1..1."""
    folder = os.environ.get("CBS_DATA")
    if folder is None or not (Path(folder) / "resnet20_cifar10.npz").exists():
        pytest.skip("CBS_DATA names no folder with ResNet20's weights and CIFAR-10")
    found = trained("resnet20")
    parts = [(part.inputs[:1000], part.targets[:1000]) for part in (found.train, found.test)]
    return found.model, *parts


@pytest.mark.slow
def test_magnitude_needs_no_gram(resnet20, monkeypatch):
    model, data, test = resnet20
    monkeypatch.setattr("cbs.curvature.gram.layer_grams", lambda *args: pytest.fail("a Gram was computed"))
    result = cbs.prune(model, data, sparsity=0.5, method="magnitude", certify=False, test=test)
    assert result.test_before.accuracy > 0.9
    assert 0.5 < result.test_after.accuracy < result.test_before.accuracy
    assert len(result.layers) == 22


@pytest.mark.slow
def test_curvatures_agree_with_what_running_the_layers_says(resnet20):
    model, data, _ = resnet20
    network = Network(model, data)
    result = cbs.prune(model, data, sparsity=0.5, method="magnitude", certify=False)
    assert all(float(scales.min()) >= 0 and float(scales.max()) > 0 for scales in row_scales(network))
    pruned = result.permanent()
    after = [layer.of(pruned) for layer in network.layers]
    precise = output_changes(network.model, network.layers, after, network.samples)
    for i, layer in enumerate(result.layers):
        W = result.permanent().get_submodule(layer.name).weight.detach().double().flatten(1).numpy()
        D = W - network.dense[i].W
        H = network(cbs.Gram())[i].H[: D.shape[1], : D.shape[1]]
        assert layer.damping == pytest.approx(network(cbs.Gram())[i].damping, rel=1e-12)
        change = float(precise[layer.name].rows.sum())
        penalty = 0.5 * layer.damping * float(np.square(D).sum())
        assert change + penalty == pytest.approx(0.5 * np.einsum("ri,ij,rj->", D, H, D), rel=1e-9)
        assert layer.measured == pytest.approx(change + penalty, rel=1e-5)  # in single precision


STAGES = {
    "conv1": ({"conv1", "layer1.0.conv2", "layer1.1.conv2", "layer1.2.conv2"}, 16),
    "layer2.0.conv2": ({"layer2.0.conv2", "layer2.0.downsample.0", "layer2.1.conv2", "layer2.2.conv2"}, 32),
    "layer3.0.conv2": ({"layer3.0.conv2", "layer3.0.downsample.0", "layer3.1.conv2", "layer3.2.conv2"}, 64),
}
"""What is added up in every stage, by hand: the first layer of each, all of them, and their channels."""


@pytest.mark.slow
def test_channels_leave_resnet20(resnet20, tmp_path):
    model, data, test = resnet20
    method = cbs.Method(cbs.Gram(), cbs.Scores("wanda"), cbs.Survivors(), name="refitted")
    result = cbs.prune(
        model,
        data,
        sparsity=0.25,
        method=method,
        scope="layer",
        granularity="neurons",
        test=test,
        certify=False,
    )
    groups = {group.name: group for group in result.neurons}
    inner = {f"layer{s}.{b}.conv1": 16 * 2 ** (s - 1) for s in (1, 2, 3) for b in (0, 1, 2)}
    assert groups.keys() == STAGES.keys() | inner.keys()
    for name, (together, channels) in STAGES.items():
        assert groups[name].rows.keys() == together
        assert groups[name].count == channels
    for name, channels in inner.items():
        assert groups[name].rows.keys() == {name}
        assert groups[name].columns.keys() == {name.replace("conv1", "conv2")}
        assert groups[name].count == channels
    small = result.permanent()
    a, b, c = 12, 24, 48
    stem = 3 * 9 * a + 2 * a
    first = 3 * (2 * 9 * a * a + 4 * a)
    second, third = (
        9 * p * q + 5 * 9 * q * q + p * q + 7 * 2 * q for p, q in ((a, b), (b, c))
    )  # of every norm a weight and a bias
    assert sum(p.numel() for p in small.parameters()) == stem + first + second + third + 10 * c + 10
    outputs = result.model(test[0])
    assert (small(test[0]) - outputs).abs().max() <= 1e-6 * outputs.abs().max()
    assert 0.5 < result.test_after.accuracy < result.test_before.accuracy
    made = cbs.export(result, tmp_path / "small.safetensors")
    assert made.needs_model is None
    assert made.bytes < 0.6 * made.dense_bytes
    loaded = cbs.load(tmp_path / "small.safetensors")
    assert torch.equal(loaded(test[0]), small(test[0]))
    program = compiled(loaded.requires_grad_(False), test[0][:2]).program
    dense = compiled(model.requires_grad_(False), test[0][:2]).program
    assert program.multiplications < 0.6 * dense.multiplications
    assert cbs.export(result, tmp_path / "small.onnx").error < 1e-5
