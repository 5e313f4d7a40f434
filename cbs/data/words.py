"""What a value or an error is, in words of one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def kind(values: Any) -> str:
    """What a value is, in words for a message."""
    if isinstance(values, Tensor | np.ndarray):
        layout = f"{values.layout} " if isinstance(values, Tensor) and values.layout != torch.strided else ""
        return f"{type(values).__name__} {list(values.shape)} of {layout}{values.dtype}"
    if isinstance(values, Mapping):
        return f"{type(values).__name__} with keys {', '.join(repr(key) for key in list(values)[:5])}"
    if isinstance(values, tuple | list):
        return f"{type(values).__name__} of {len(values)}"
    return type(values).__name__
