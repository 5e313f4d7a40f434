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

from cbs.data import Samples
from cbs.zoo import trained

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
    known, held = {
        "mlpnet": ("mlpnet", HELD_OUT),
        "resnet20": ("resnet20", 500),
        "wide": ("mlp-300", HELD_OUT),
    }[name]
    return _case(name, known, path, seed, held)


def _case(name: str, known: str, path: Path, seed: int, held: int) -> Case:
    """A network of the zoo, its training images in the order of a seed."""
    found = trained(known, path)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(found.train)))
    return _of(name, found.model, found.layers, found.train, order, held, found.test)


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


@torch.no_grad()
def _outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    return torch.cat([model(part) for part in torch.split(inputs, 500)]).double()


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
