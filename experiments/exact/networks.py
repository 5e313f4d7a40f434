"""The trained networks whose rows are solved."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.nn import functional as F

import cbs
from cbs.data import Samples, mnist
from cbs.network.network import Network
from cbs.schedule.training import train
from cbs.zoo import mlpnet


def networks(config: dict[str, Any], data_dir: str | None) -> Iterator[tuple[str, Network]]:
    """Each network's name and its layer objectives; those on MNIST only where its files are."""
    model, split = cbs.trained_digits_mlp()
    yield "digits 64-32-16-10", Network(model, split.train, damping=config["damping"])
    samples = breast_cancer()
    yield "breast cancer 30-48-32-2", trained([30, 48, 32, 2], samples, config)
    if data_dir is None:
        return
    images = mnist(data_dir).train.choose(config["images"])
    small = Samples(F.avg_pool2d(images.inputs.reshape(-1, 1, 28, 28), 4).flatten(1), images.targets)
    yield "mnist 7x7 49-64-48-10", trained([49, 64, 48, 10], small, config)
    published = Path(data_dir) / "mlpnet_93.97.npz"
    if published.exists():
        yield "mlpnet 784-40-20-10", Network(mlpnet(published), images, damping=config["damping"])


def breast_cancer() -> Samples:
    """The 569 patients of scikit-learn's data, 30 standardised measurements each."""
    data = load_breast_cancer()
    X = torch.tensor(data.data, dtype=torch.float32)
    return Samples((X - X.mean(dim=0)) / X.std(dim=0), torch.tensor(data.target))


def trained(widths: list[int], samples: Samples, config: dict[str, Any]) -> Network:
    """A trained multilayer perceptron with ReLU and biases."""
    torch.manual_seed(config["seed"])
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.orthogonal_(linear.weight, gain=2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    train(model, samples, epochs=20, seed=config["seed"])
    return Network(model, samples, damping=config["damping"])
