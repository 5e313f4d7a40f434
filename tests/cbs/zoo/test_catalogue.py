"""Trained networks by name."""

import pytest
import torch

from cbs import zoo


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


@pytest.mark.slow
def test_networks_on_data_of_the_folder(monkeypatch):
    import os

    if not os.environ.get("CBS_DATA"):
        pytest.skip("CBS_DATA names no folder with the data")
    least = {
        "mnist-7x7": 0.93,
        "mnist-12x12": 0.94,
        "mnist-14x14": 0.94,
        "mlpnet": 0.93,
        "mlp-300": 0.97,
        "resnet20": 0.91,
    }
    for name, bound in least.items():
        assert accuracy(zoo.trained(name)) > bound
