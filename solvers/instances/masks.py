"""Masks of an instance in a file: packed bits and shapes, one a layer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solvers.checker.archive import read_archive
from solvers.problem import Mask


def packed(masks: Sequence[Mask]) -> dict[str, Any]:
    """The arrays of a mask file: `mask_I` and `shape_I` of every layer."""
    arrays: dict[str, Any] = {}
    for i, mask in enumerate(masks):
        arrays |= {f"mask_{i}": np.packbits(mask), f"shape_{i}": np.array(mask.shape, np.int64)}
    return arrays


def unpacked(path: Path) -> list[Mask]:
    """The masks of a file, one a layer.

    Raises:
        ValueError: in one line, for a file that is damaged or holds something else.
    """
    arrays = read_archive(path, "mask file", lambda declared: None)
    try:
        masks = []
        for i in range(len(arrays) // 2):
            m, n = arrays[f"shape_{i}"].tolist()
            masks.append(np.unpackbits(arrays[f"mask_{i}"], count=m * n).reshape(m, n).astype(bool))
    except (KeyError, ValueError, TypeError):
        raise ValueError(
            f"mask file {os.fspath(path)!r} does not hold packed masks with their shapes"
        ) from None
    return masks
