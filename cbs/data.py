"""Calibration data in the forms that users have it, and the two data sets that come with the package."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = {
    "train-images-idx3-ubyte.gz": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte.gz": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte.gz": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte.gz": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
}
"""MD5 of every file as it is downloaded, and of its content."""
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081


@dataclass(frozen=True)
class Samples:
    """Inputs `[N, ...]` and targets `[N, ...]`, sample by sample.

    Raises:
        ValueError: if the two disagree in number, there are none, or an input is not finite.
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if not self.inputs.ndim or not self.targets.ndim or len(self.inputs) != len(self.targets):
            raise ValueError(
                f"data: inputs {list(self.inputs.shape)} and targets {list(self.targets.shape)} "
                "must have as many samples in their first dimension"
            )
        if not len(self.inputs):
            raise ValueError("data holds no samples; give at least one")
        for name, values in (("inputs", self.inputs), ("targets", self.targets)):
            if values.is_floating_point() and not bool(torch.isfinite(values).all()):
                raise ValueError(f"data: {name} hold NaN or infinite values; every entry must be finite")

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, size: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
        """The samples in order, `size` at a time."""
        yield from zip(torch.split(self.inputs, size), torch.split(self.targets, size), strict=True)

    def choose(self, count: int | None, seed: int = 0) -> Samples:
        """`count` samples drawn without replacement, in their order; all when there are no more."""
        if count is None or count >= len(self):
            return self
        drawn = np.random.default_rng(seed).choice(len(self), size=count, replace=False)
        index = torch.from_numpy(np.sort(drawn))
        return Samples(self.inputs[index], self.targets[index])

    def to(self, device: str | torch.device) -> Samples:
        """The samples on a torch device."""
        return Samples(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Split:
    """A data set in two parts: one to train and calibrate on, one to test with."""

    train: Samples
    test: Samples


def gather(data: Any, samples: int | None = None, seed: int = 0) -> Samples:
    """Calibration data as `Samples`.

    Args:
        data: `Samples`; a pair (inputs, targets) of tensors or arrays; a torch `Dataset` or
            `DataLoader`; or an iterable of such pairs, one a batch.
        samples: how many to take, or None for all. Drawn at random where the data can be indexed
            (pair, map-style data set), the first ones otherwise.
        seed: of the draw.

    Raises:
        ValueError: if the data has none of these forms, no samples, or values that are not finite.
    """
    if samples is not None and samples < 1:
        raise ValueError(f"samples must be at least 1 or None, got {samples}")
    if isinstance(data, Samples):
        return data.choose(samples, seed)
    if _is_pair(data):
        return Samples(torch.as_tensor(data[0]), torch.as_tensor(data[1])).choose(samples, seed)
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        count = len(data)  # type: ignore[arg-type]
        index = np.arange(count)
        if samples is not None and samples < count:
            index = np.sort(np.random.default_rng(seed).choice(count, size=samples, replace=False))
        data = DataLoader(torch.utils.data.Subset(data, index.tolist()), batch_size=256)
    elif isinstance(data, IterableDataset):
        data = DataLoader(data, batch_size=256)
    if not isinstance(data, Iterable) or isinstance(data, str | bytes | Tensor | np.ndarray):
        raise ValueError(
            f"data must be (inputs, targets), a Dataset, a DataLoader or an iterable of batches, "
            f"not {type(data).__name__}"
        )
    return _collect(data, samples)


def digits(test_fraction: float = 0.2) -> Split:
    """Scikit-learn's 8 x 8 digits: inputs `[N, 64]` in 0..1, labels 0..9, a fixed stratified split."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    X, y = load_digits(return_X_y=True)
    parts = train_test_split(X / 16.0, y, test_size=test_fraction, random_state=0, stratify=y)
    X_train, X_test, y_train, y_test = (torch.from_numpy(part) for part in parts)
    return Split(Samples(X_train.float(), y_train.long()), Samples(X_test.float(), y_test.long()))


def mnist(data_dir: str | os.PathLike[str] | None = None, url: str = MNIST_URL) -> Split:
    """MNIST: inputs `[N, 784]` normalised with mean 0.1307 and deviation 0.3081, labels 0..9.

    Args:
        data_dir: folder with the four idx `.gz` files, or with a folder `mnist` that has them. By
            default the environment variable `CBS_DATA`, or else the user's cache folder. Files
            that are not there are downloaded, and every file's checksum is verified.
        url: where to download from.

    Raises:
        ValueError: if a file can be neither found nor downloaded, or is not what it should be.
    """
    folder = Path(data_dir or os.environ.get("CBS_DATA") or pooch.os_cache("combinatorial-brain-surgeon"))
    if not (folder / next(iter(MNIST_FILES))).exists():
        folder = folder / "mnist"
    arrays = [_read_idx(_fetch(name, folder, url), MNIST_FILES[name][1]) for name in MNIST_FILES]
    parts = []
    for images, labels in (arrays[:2], arrays[2:]):
        X = torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / 255.0)
        parts.append(Samples((X - MNIST_MEAN) / MNIST_STD, torch.from_numpy(labels.astype(np.int64))))
    return Split(*parts)


def _fetch(name: str, folder: Path, url: str) -> Path:
    path = folder / name
    if path.exists():
        return path
    try:
        pooch.retrieve(url + name, known_hash=f"md5:{MNIST_FILES[name][0]}", fname=name, path=folder)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"MNIST: {name} is not in {folder} and can't be had from {url} ({first_line(error)}); "
            "set CBS_DATA to a folder with the four idx .gz files"
        ) from None
    return path


def _read_idx(path: Path, md5: str) -> NDArray[np.uint8]:
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} can't be read ({first_line(error)}); delete it to have it downloaded"
        ) from None
    if hashlib.md5(raw, usedforsecurity=False).hexdigest() != md5:
        raise ValueError(f"{path} does not hold the standard MNIST; delete it to have it downloaded")
    ndim = raw[3]
    shape = np.frombuffer(raw, dtype=">u4", count=ndim, offset=4).astype(int)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * ndim).reshape(shape)


def _is_pair(data: Any) -> bool:
    arrays = (Tensor, np.ndarray)
    return (
        isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, arrays) for part in data)
    )


def _collect(batches: Iterable[Any], samples: int | None) -> Samples:
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    count = 0
    for batch in batches:
        if not _is_pair(batch):
            raise ValueError(f"data: a batch must be a pair (inputs, targets), not {type(batch).__name__}")
        inputs.append(torch.as_tensor(batch[0]))
        targets.append(torch.as_tensor(batch[1]))
        count += len(inputs[-1])
        if samples is not None and count >= samples:
            break
    if not inputs:
        raise ValueError("data holds no samples; give at least one")
    try:
        return Samples(torch.cat(inputs)[:samples], torch.cat(targets)[:samples])
    except RuntimeError as error:
        raise ValueError(f"data: batches differ in shape ({first_line(error)})") from None


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
