"""Data of a file: arrays by name in `.npz`, `.pt` or `.safetensors`, or lines of text."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cbs.cli.weights import require_archive, told
from cbs.data.collect import LABELS

SUFFIXES = (".npz", ".npy", ".pt", ".pth", ".safetensors", ".txt")
"""Of files with data."""
INPUTS = ("inputs", "input", "x", "X")
"""Names of an array that is the one input, whatever the model calls it."""
TARGETS = (*LABELS, "y", "Y")
"""Names of an array that holds the targets."""
TEXTS = 16
"""Lines of text in a batch."""


def is_file(name: str) -> bool:
    """Whether data that is named so is a file of data, there or not."""
    return Path(name).suffix in SUFFIXES


def read_data(kind: str, name: str, tokenizer: Any = None) -> Any:
    """Data of a file.

    Arrays are inputs by the names of the model's arguments, and targets by one of `TARGETS`. An array that
    has one of the names in `INPUTS`, and is the only one beside the targets, is given by position. A `.pt`
    file may also hold a tensor, or a pair of inputs and targets; lines of a `.txt` file are given to the
    tokenizer. Nothing in a file is executed.

    Args:
        kind: of the option, for messages.
        name: of the file.
        tokenizer: of the model's folder, for text.

    Returns:
        What `cbs.data.gather` takes.

    Raises:
        ValueError: in one line, for a file that can't be read, or holds something else.
    """
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"{kind} {name!r}: there is no such file")
    if path.suffix == ".txt":
        return _texts(kind, path, tokenizer)
    try:
        found = _load(path)
    except pickle.UnpicklingError:
        raise ValueError(f"{kind} {name!r} holds more than tensors; save a dict of them") from None
    except Exception as error:  # of many classes, for bytes that are something else
        raise ValueError(f"{kind} {name!r} can't be read ({told(error)})") from None
    if not isinstance(found, Mapping):
        return found
    if not found:
        raise ValueError(f"{kind} {name!r} holds no arrays")
    inputs = {key: value for key, value in found.items() if key not in TARGETS}
    targets = [key for key in found if key in TARGETS]
    if len(targets) > 1:
        raise ValueError(
            f"{kind} {name!r} has targets under {' and '.join(map(repr, targets))}; keep one of them"
        )
    if not inputs:
        raise ValueError(f"{kind} {name!r} holds no inputs, only {targets[0]!r}")
    alone = len(inputs) == 1 and next(iter(inputs)) in INPUTS
    given = next(iter(inputs.values())) if alone else inputs
    return given, found[targets[0]] if targets else None


def _load(path: Path) -> Any:
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix == ".npz":
        require_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    found = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(found, Mapping | Tensor | tuple | list):
        return found
    raise ValueError(f"it holds {type(found).__name__}, not tensors")


def _texts(kind: str, path: Path, tokenizer: Any) -> list[dict[str, Tensor]]:
    if tokenizer is None:
        raise ValueError(
            f"{kind} {str(path)!r} is text, which takes a model folder with a tokenizer; give arrays of "
            "tokens"
        )
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{kind} {str(path)!r} can't be read ({told(error)})") from None
    if not lines:
        raise ValueError(f"{kind} {str(path)!r} holds no lines of text")
    batches = []
    for start in range(0, len(lines), TEXTS):
        batch = tokenizer(lines[start : start + TEXTS], padding=True, truncation=True, return_tensors="pt")
        batches.append(dict(batch))
    return batches
