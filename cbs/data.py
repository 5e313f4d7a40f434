"""Calibration data in the forms that users have it, and the two data sets that come with the package."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
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
BATCH = 500
"""Samples that a network is given at once, unless the data comes in batches of its own."""


@dataclass(frozen=True)
class Samples:
    """Inputs `[N, ...]` and targets `[N, ...]`, sample by sample.

    Attributes:
        inputs: of the network.
        targets: of the loss.
        batch: most samples that the network is given at once.

    Raises:
        ValueError: if the two disagree in number, there are none, or one is complex or not finite.
    """

    inputs: Tensor
    targets: Tensor
    batch: int = BATCH

    def __post_init__(self) -> None:
        if not self.inputs.ndim or not self.targets.ndim or len(self.inputs) != len(self.targets):
            raise ValueError(
                f"data: inputs {list(self.inputs.shape)} and targets {list(self.targets.shape)} must have as "
                "many samples in their first dimension (a DataLoader needs a batch_size for that)"
            )
        if not len(self.inputs):
            raise ValueError("data holds no samples; give at least one")
        for name, values in (("inputs", self.inputs), ("targets", self.targets)):
            if values.layout != torch.strided or values.is_quantized or values.is_complex():
                raise ValueError(f"data: {name} are {_kind(values)}; give a dense tensor of real numbers")
            if values.is_floating_point() and not bool(torch.isfinite(values).all()):
                raise ValueError(f"data: {name} hold NaN or infinite values; every entry must be finite")

    def __repr__(self) -> str:
        return f"Samples({len(self)}: inputs {list(self.inputs.shape)}, targets {list(self.targets.shape)})"

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, size: int = BATCH) -> Iterator[tuple[Tensor, Tensor]]:
        """Copies of the samples in order, `size` at a time and never more than `batch`.

        A network or a loss that changes what it is given in place changes nothing for later passes.
        """
        size = min(size, self.batch)
        for inputs, targets in zip(
            torch.split(self.inputs, size), torch.split(self.targets, size), strict=True
        ):
            yield inputs.clone(), targets.clone()

    def first(self, count: int) -> Tensor:
        """A copy of the inputs of the first `count` samples, or of one batch if that is smaller."""
        return next(self.batches(count))[0]

    def choose(self, count: int | None, seed: int = 0) -> Samples:
        """`count` samples drawn without replacement, in their order; all when there are no more."""
        if count is None or count >= len(self):
            return self
        drawn = np.random.default_rng(seed).choice(len(self), size=count, replace=False)
        index = torch.from_numpy(np.sort(drawn))
        return replace(self, inputs=self.inputs[index], targets=self.targets[index])

    def to(self, device: str | torch.device) -> Samples:
        """The samples on a torch device."""
        return replace(self, inputs=self.inputs.to(device), targets=self.targets.to(device))


@dataclass(frozen=True)
class Split:
    """A data set in two parts: one to train and calibrate on, one to test with."""

    train: Samples
    test: Samples


def gather(data: Any, samples: int | None = None, seed: int = 0) -> Samples:
    """Calibration data as `Samples`, whose `batch` is the largest batch that the data came in, if any.

    Args:
        data: `Samples`; a pair (inputs, targets) of tensors or arrays; a torch `Dataset` or
            `DataLoader`; or an iterable of such pairs, one a batch.
        samples: how many to take, or None for all. Drawn at random where the data can be indexed
            (pair, map-style data set), the first ones otherwise.
        seed: of the draw.

    Raises:
        ValueError: if the data has none of these forms, no samples, or values that are not finite.
    """
    if isinstance(data, Samples):
        return data.choose(samples, seed)
    if _is_pair(data):
        return Samples(*_pair(data)).choose(samples, seed)
    if isinstance(data, Dataset):
        if not isinstance(data, IterableDataset):
            count = len(data)  # type: ignore[arg-type]
            index = np.arange(count)
            if samples is not None and samples < count:
                index = np.sort(np.random.default_rng(seed).choice(count, size=samples, replace=False))
            data = torch.utils.data.Subset(data, index.tolist())
        return replace(_collect(DataLoader(data, batch_size=256), samples), batch=BATCH)
    if not isinstance(data, Iterable) or isinstance(data, Mapping | str | bytes | Tensor | np.ndarray):
        raise ValueError(
            f"data must be (inputs, targets), a Dataset, a DataLoader or an iterable of batches, "
            f"not {_kind(data)}"
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


MONKS_VALUES = (3, 3, 2, 3, 4, 2)
"""How many values each of the six attributes has."""


def monks(problem: int, data_dir: str | os.PathLike[str] | None = None) -> Split:
    """A MONK's problem: inputs `[N, 17]`, a 0 or 1 for every value of every attribute, labels 0 and 1.

    The problems are three rules on six attributes (Thrun et al. 1991). The training parts have 124, 169 and
    122 samples, of which 5% of the third have a wrong label; the test part has all 432 there are.

    Args:
        problem: 1, 2 or 3.
        data_dir: folder with UCI's files `monks-1.train` and so on, or with a folder `monks` that has them;
            by default the environment variable `CBS_DATA`.

    Raises:
        ValueError: for another problem, or a file that is not there or not what it should be.
    """
    if isinstance(problem, bool) or problem not in (1, 2, 3):
        raise ValueError(f"problem must be 1, 2 or 3, got {problem!r}")
    folder = Path(data_dir or os.environ.get("CBS_DATA") or "")
    if not (folder / f"monks-{problem}.train").exists():
        folder = folder / "monks"
    return Split(*(_read_monks(folder / f"monks-{problem}.{part}") for part in ("train", "test")))


def _read_monks(path: Path) -> Samples:
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} can't be read ({first_line(error)}); set CBS_DATA to a folder with UCI's MONK's problems"
        ) from None
    sizes = np.array(MONKS_VALUES)
    try:
        values = np.array([[int(word) for word in words[:7]] for words in lines]).reshape(-1, 7)
        wrong = not len(values) or (values[:, 0] // 2).any() or (values[:, 1:] < 1).any()
        if wrong or (values[:, 1:] > sizes).any():
            raise ValueError("a value out of its range")
    except ValueError as error:
        raise ValueError(
            f"{path} does not hold a MONK's problem ({first_line(error)}): a line is a class, 0 or 1, six "
            "attributes counted from 1, and an id"
        ) from None
    hot = [np.eye(size)[values[:, 1 + i] - 1] for i, size in enumerate(MONKS_VALUES)]
    return Samples(torch.from_numpy(np.hstack(hot)).float(), torch.from_numpy(values[:, 0]).long())


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
    """Whether data is one pair (inputs, targets), well formed or not, rather than two batches."""
    two = isinstance(data, tuple | list) and len(data) == 2
    return two and any(isinstance(part, Tensor | np.ndarray) for part in data)


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    """A batch's inputs and targets as tensors; a ValueError says what else it is."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        lack = ""
        if isinstance(batch, Tensor | np.ndarray) or (isinstance(batch, tuple | list) and len(batch) == 1):
            lack = " and has no targets"
        raise ValueError(f"data: a batch is {_kind(batch)}{lack}; give pairs (inputs, targets) of tensors")
    found = []
    for name, values in zip(("inputs", "targets"), batch, strict=True):
        if not isinstance(values, Tensor | np.ndarray):
            raise ValueError(
                f"data: {name} are {_kind(values)}, but must be one tensor or array; "
                "wrap a model that takes several"
            )
        try:
            found.append(torch.as_tensor(values).detach())
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"data: {name} are {_kind(values)} ({first_line(error)}); give numbers"
            ) from None
    return found[0], found[1]


def _kind(values: Any) -> str:
    """What a value is, in words for a message."""
    if isinstance(values, Tensor | np.ndarray):
        layout = f"{values.layout} " if isinstance(values, Tensor) and values.layout != torch.strided else ""
        return f"{type(values).__name__} {list(values.shape)} of {layout}{values.dtype}"
    if isinstance(values, Mapping):
        return f"{type(values).__name__} with keys {', '.join(repr(key) for key in list(values)[:5])}"
    if isinstance(values, tuple | list):
        return f"{type(values).__name__} of {len(values)}"
    return type(values).__name__


def _collect(batches: Iterable[Any], samples: int | None) -> Samples:
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    stream = iter(batches)
    while samples is None or sum(map(len, inputs)) < samples:
        try:
            batch = next(stream)
        except StopIteration:
            break
        except Exception as error:
            raise ValueError(f"data can't be read ({type(error).__name__}: {first_line(error)})") from error
        part = Samples(*_pair(batch))
        inputs.append(part.inputs.clone())  # a loader may fill one buffer again and again
        targets.append(part.targets.clone())
    if not inputs:
        raise ValueError("data holds no samples; give at least one")
    largest = max(map(len, inputs))
    try:
        return Samples(torch.cat(inputs)[:samples], torch.cat(targets)[:samples], largest)
    except RuntimeError as error:
        raise ValueError(f"data: batches differ in shape ({first_line(error)})") from None


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
