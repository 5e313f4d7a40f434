"""The data sets that come with the package, or are downloaded for it."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

import numpy as np
import pooch
import torch
from numpy.typing import NDArray

from cbs.data.samples import Samples, Split
from cbs.data.words import first_line

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = {
    "train-images-idx3-ubyte.gz": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte.gz": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte.gz": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte.gz": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
}
"""MD5 of every file as it is downloaded, and of its content."""
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081


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
