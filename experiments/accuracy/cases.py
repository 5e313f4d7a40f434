"""The networks of these experiments, their data, and how a pruned one is measured."""

import argparse
import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cbs
from cbs.data import Samples, mnist
from cbs.zoo import mlpnet

HELD_OUT = 5_000
"""Training images that no calibration sees, on which divergences are measured."""
PUBLISHED = {
    "mlpnet": {
        "CBS": {0.9: 93.14, 0.95: 88.92, 0.98: 55.45},
        "CHITA++, 15 stages": {0.95: 92.71, 0.98: 89.08},
    },
    "resnet20": {
        "CBS": {0.5: 90.58, 0.6: 88.88, 0.7: 81.84, 0.8: 51.28, 0.9: 13.68},
        "CHITA, one stage": {0.5: 90.76, 0.7: 81.75},
    },
    "wide": {},
}
"""Test accuracies in percent, without retraining, by sparsity; CHITA++ as its released code was measured."""


@dataclass(frozen=True)
class Case:
    """A trained network and its data.

    Attributes:
        name: of the network.
        model: trained.
        layers: those that are pruned; None for all.
        train: what is calibrated on, in the order of the seed.
        held_out: what divergences are measured on.
        test: what accuracies are measured on.
    """

    name: str
    model: nn.Module
    layers: list[str] | None
    train: Samples
    held_out: Tensor
    test: Samples

    def calibration(self, count: int) -> tuple[Tensor, Tensor]:
        """The first `count` of the training images."""
        return self.train.inputs[:count], self.train.targets[:count]

    def measured(self, pruned: nn.Module, tested: int | None = None) -> dict[str, float]:
        """Accuracy (percent) and loss on test images, all or the first; divergence on those held out."""
        dense, here = (_outputs(model, self.held_out) for model in (self.model, pruned))
        p, q = dense.log_softmax(dim=1), here.log_softmax(dim=1)
        inputs, targets = self.test.inputs[:tested], self.test.targets[:tested]
        outputs = _outputs(pruned, inputs)
        return {
            "accuracy": round(100 * float((outputs.argmax(dim=1) == targets).double().mean()), 2),
            "loss": round(float(F.cross_entropy(outputs, targets)), 5),
            "divergence": round(float((p.exp() * (p - q)).sum(dim=1).mean()), 5),
        }


def case(name: str, folder: str | None, seed: int) -> Case:
    """A network by name, its training images in the order of a seed."""
    found = folder or os.environ.get("CBS_DATA")
    if not found:
        raise SystemExit("--data-dir or CBS_DATA must name a folder with the networks and their data")
    path = Path(found)
    return {"mlpnet": _mlpnet, "resnet20": _resnet20, "wide": _wide}[name](path, seed)


def _mlpnet(path: Path, seed: int) -> Case:
    split = mnist(path)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(split.train)))
    return _of("mlpnet", mlpnet(path / "mlpnet_93.97.npz"), None, split.train, order, HELD_OUT, split.test)


def _wide(path: Path, seed: int) -> Case:
    """784-300-100-10 with ReLU and biases, trained by `cbs.train` from seed 0."""
    split = mnist(path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
        model = nn.Sequential(*layers)
    cbs.train(model, split.train, epochs=5, batch=128, learning_rate=1e-3, seed=0)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(split.train)))
    return _of("wide", model, None, split.train, order, HELD_OUT, split.test)


def _resnet20(path: Path, seed: int) -> Case:
    model = ResNet20()
    with np.load(path / "resnet20_cifar10.npz") as arrays:
        model.load_state_dict({name: torch.from_numpy(arrays[name]) for name in model.state_dict()})
    parts = []
    with np.load(path / "cifar10_subset.npz") as arrays:
        for part in ("train", "test"):
            images = torch.from_numpy(arrays[f"{part}_images"]).float() / 255
            parts.append(Samples((images - 0.5) / 0.5, torch.from_numpy(arrays[f"{part}_labels"]).long()))
    layers = [name for name, module in model.named_modules() if _is_inner(name, module)]
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(parts[0])))
    return _of("resnet20", model.eval(), layers, parts[0], order, 500, parts[1])


def _of(
    name: str,
    model: nn.Module,
    layers: list[str] | None,
    train: Samples,
    order: Tensor,
    held: int,
    test: Samples,
) -> Case:
    some = order[:-held]
    chosen = Samples(train.inputs[some], train.targets[some])
    return Case(name, model, layers, chosen, train.inputs[order[-held:]], test)


def _is_inner(name: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and name != "conv1"


@torch.no_grad()
def _outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    return torch.cat([model(part) for part in torch.split(inputs, 500)]).double()


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Sequential()
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class ResNet20(nn.Module):
    """He et al. 2016, section 4.2, with 1 x 1 convolutions for shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        stages = [
            nn.Sequential(Block(before, channels, stride), *(Block(channels, channels, 1) for _ in range(2)))
            for before, channels, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        ]
        self.layer1, self.layer2, self.layer3 = stages
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3)))


class Rows:
    """Raw rows in a CSV file: read at the start, written one by one; those that are there are not done again.

    Args:
        path: of the file.
        keys: fields by which a row is told from others.
        values: the other fields.
    """

    def __init__(self, path: Path, keys: tuple[str, ...], values: tuple[str, ...]) -> None:
        self.path, self.keys, self.fields = path, keys, (*keys, *values)
        self.rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="") as file:
                self.rows = list(csv.DictReader(file))

    def has(self, **key: Any) -> bool:
        """Whether there is such a row."""
        return any(all(row[name] == str(value) for name, value in key.items()) for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row to the file."""
        text = {name: str(row[name]) for name in self.fields}
        new = not self.path.exists()
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.fields, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(text)
        self.rows.append(text)
        print(*(f"{name} {value}" for name, value in text.items()), flush=True)


def arguments(doc: str | None, networks: tuple[str, ...]) -> argparse.ArgumentParser:
    """What all of these scripts take."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--data-dir", help="folder with the data; CBS_DATA if absent")
    parser.add_argument("--network", nargs="*", choices=networks, default=networks)
    parser.add_argument("--sparsity", nargs="*", type=float, help="some of the sparsities; all if absent")
    parser.add_argument("--seed", nargs="*", type=int, default=[0])
    return parser


def put(path: Path, name: str, text: str) -> None:
    """Replace what stands between two markers of a document."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = path.read_text().split(begin)
    path.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{rest.split(end)[1]}")
