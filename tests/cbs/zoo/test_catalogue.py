"""Trained networks by name."""

import numpy as np
import pytest
import torch

from cbs import zoo
from cbs.data import Samples
from cbs.zoo.catalogue import averaged


def accuracy(found):
    with torch.no_grad():
        return float((found.model(found.test.inputs).argmax(1) == found.test.targets).double().mean())


@pytest.mark.parametrize(
    ("name", "widths", "least"),
    [
        ("digits", (64, 32, 16, 10), 0.96),
        ("breast-cancer", (30, 48, 32, 2), 0.93),
        ("wine", (13, 32, 16, 3), 0.93),
    ],
)
def test_networks_that_need_no_data(name, widths, least):
    found = zoo.trained(name)
    assert found.name == name
    assert accuracy(found) > least
    assert tuple(layer.in_features for layer in found.model[::2]) == widths[:-1]
    assert not found.model.training
    assert next(found.model.parameters()).dtype == torch.float32
    again = zoo.trained(name)
    assert all(
        torch.equal(a, b) for a, b in zip(found.model.parameters(), again.model.parameters(), strict=True)
    )


def test_another_seed_gives_another_network():
    weights = [zoo.trained("wine", seed=seed).model[0].weight for seed in (0, 1)]
    assert not torch.allclose(*weights, atol=1e-3)


def test_what_is_not_known_or_not_there_is_refused_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"unknown network 'resnet2'; did you mean 'resnet20'\?"):
        zoo.trained("resnet2")
    with pytest.raises(ValueError, match=r"unknown network 'x'; known: digits, breast-cancer"):
        zoo.trained("x")
    with pytest.raises(ValueError, match="seed must be a whole number from 0, got -1"):
        zoo.trained("wine", seed=-1)
    monkeypatch.delenv("CBS_DATA", raising=False)
    with pytest.raises(ValueError, match=r"'resnet20' needs resnet20_cifar10\.npz; set CBS_DATA"):
        zoo.trained("resnet20")
    with pytest.raises(ValueError, match=r"needs mlpnet_93\.97\.npz, which is not in .*; set CBS_DATA"):
        zoo.trained("mlpnet", tmp_path)


def test_images_are_averaged_over_the_pixels_that_a_part_of_them_touches():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 28, 28))
    found = averaged(Samples(torch.from_numpy(images), torch.zeros(3)), 10).inputs.reshape(3, 10, 10)
    for i, j in ((0, 0), (3, 8), (9, 9)):
        down, right = (slice(28 * k // 10, -(-28 * (k + 1) // 10)) for k in (i, j))
        assert found[:, i, j].numpy() == pytest.approx(images[:, down, right].mean(axis=(1, 2)), rel=1e-12)


@pytest.mark.slow
def test_networks_on_data_of_the_folder(monkeypatch):
    import os

    if not os.environ.get("CBS_DATA"):
        pytest.skip("CBS_DATA names no folder with the data")
    least = {
        "mnist-7x7": 0.93,
        "mnist-12x12": 0.94,
        "mnist-10x10": 0.93,
        "mnist-14x14": 0.94,
        "mnist-16x16": 0.94,
        "cifar-8x8": 0.28,
        "cifar-16x16": 0.28,
        "mlpnet": 0.93,
        "mlp-300": 0.97,
        "resnet20": 0.91,
    }
    for name, bound in least.items():
        assert accuracy(zoo.trained(name)) > bound
