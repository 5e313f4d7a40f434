"""Weights from files, whole and of the right kind, into a model; nothing in a file is executed."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

SLACK = 1 << 26
"""Bytes by which an archive may grow as it is read."""


def fill(model: nn.Module, path: Path) -> nn.Module:
    """Load a state dict into a model, in place.

    Args:
        model: whose names, shapes and types the file must have.
        path: a `.safetensors` or `.pt` file.

    Raises:
        ValueError: in one line, for a file that can't be read, or is another model's.
    """
    state, needed = read_state(path), model.state_dict()
    for name, tensor in needed.items():
        if name not in state:
            raise ValueError(
                f"weights {str(path)!r} lack {name!r}, which the model has; is it another architecture?"
            )
        if isinstance(tensor, Tensor) and (wrong := _unlike(state[name], tensor)):
            raise ValueError(f"weights {str(path)!r}: {name!r} {wrong}")
    for name in state:
        if name not in needed:
            raise ValueError(
                f"weights {str(path)!r} hold {name!r}, which the model has not; is it another architecture?"
            )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"weights {str(path)!r} can't be loaded ({told(error)})") from None
    return model


def require_archive(path: Path) -> None:
    """See that what a zip archive declares is about what it takes on the disk.

    Raises:
        ValueError: in one line, if it would be many times larger in memory, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(member.file_size for member in archive.infolist())
    except Exception as error:  # of many classes, for bytes that are no archive
        raise ValueError(f"weights {str(path)!r} can't be read ({told(error)})") from None
    if declared > os.path.getsize(path) + SLACK:
        raise ValueError(
            f"weights {str(path)!r} can't be read (it would take {declared / 1e6:,.0f} MB; "
            "save it uncompressed)"
        )


def told(error: BaseException) -> str:
    """An exception in one line."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _unlike(given: Tensor, needed: Tensor) -> str | None:
    """What a tensor is that it may not be, or None."""
    if given.layout != torch.strided or given.is_quantized or given.is_meta:
        kind = "quantized" if given.is_quantized else "without values" if given.is_meta else str(given.layout)
        return f"is {kind}; it must be a dense tensor"
    if given.shape != needed.shape:
        return f"has shape {list(given.shape)}, but the model needs {list(needed.shape)}"
    kinds = [(tensor.is_complex(), tensor.is_floating_point()) for tensor in (given, needed)]
    if kinds[0] != kinds[1]:
        return f"is of type {given.dtype}, but the model needs {needed.dtype}"
    return None


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file.

    Raises:
        ValueError: in one line, for a file that can't be read, or holds none.
    """
    if not path.is_file():
        raise ValueError(f"weights {str(path)!r} is not a file; give a .safetensors or .pt state dict")
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise ValueError(f"weights {str(path)!r} must be a .safetensors or .pt file")
    if path.suffix != ".safetensors" and zipfile.is_zipfile(path):
        require_archive(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        why = "it holds more than tensors, or nothing; save model.state_dict()"
        raise ValueError(f"weights {str(path)!r} can't be read ({why})") from None
    except Exception as error:  # safetensors and PyTorch raise classes of their own
        raise ValueError(f"weights {str(path)!r} can't be read ({told(error)})") from None
    if isinstance(state, Mapping) and all(isinstance(value, Tensor) for value in state.values()):
        return dict(state)
    items = state.items() if isinstance(state, Mapping) else ()
    nested = [str(name) for name, value in items if isinstance(value, Mapping)]
    hint = f", but perhaps one under {nested[0]!r}: save that alone" if nested else ""
    raise ValueError(f"weights {str(path)!r} can't be read (it holds no state dict{hint})")
