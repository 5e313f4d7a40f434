"""Weights from files, whole and of the right kind, into a model; nothing in a file is executed."""

from __future__ import annotations

import difflib
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from cbs.cli.output import ExtraWeights

SLACK = 1 << 26
"""Bytes by which an archive may grow as it is read."""
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""Of files with weights."""
STATES = (
    "state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params",
    "ema_state_dict", "model_ema", "ema",
)  # fmt: skip
"""Names under which checkpoints hold a state dict, in the order in which they are taken."""
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")
"""What wrappers put before the names."""
SHOWN = 5
"""Names that a message lists."""


def fill(model: nn.Module, path: Path) -> nn.Module:
    """Load a state dict into a model, in place.

    The file may hold it under a name, as checkpoints of training loops do (`STATES`), with names before which
    a wrapper has put something (`module.`, `_orig_mod.`, `model.`), and with more than the model has, which
    is told by a warning of class `ExtraWeights`.

    Args:
        model: whose names, shapes and types the file must have.
        path: a `.safetensors`, `.pt`, `.pth`, `.bin` or `.ckpt` file.

    Raises:
        ValueError: in one line, for a file that can't be read, or is another model's.
    """
    needed = model.state_dict()
    state = _named_as(read_state(path), needed)
    state = {**_tied(state, needed), **state}
    for name, tensor in needed.items():
        if name not in state:
            near = difflib.get_close_matches(name, list(state), n=2)
            hint = f" The nearest there are {' and '.join(map(repr, near))}" if near else ""
            raise ValueError(
                f"weights {str(path)!r} lack {name!r}, which the model has; is it another architecture?{hint}"
            )
        if isinstance(tensor, Tensor) and (wrong := _unlike(state[name], tensor)):
            raise ValueError(f"weights {str(path)!r}: {name!r} {wrong}")
    extra = [name for name in state if name not in needed]
    try:
        model.load_state_dict({name: state[name] for name in needed})
    except RuntimeError as error:
        raise ValueError(f"weights {str(path)!r} can't be loaded ({told(error)})") from None
    if extra:
        shown = ", ".join(map(repr, extra[:SHOWN])) + (
            f" and {len(extra) - SHOWN} more" if extra[SHOWN:] else ""
        )
        warnings.warn(
            f"weights {str(path)!r} hold what the model has not, which is left out: {shown}",
            ExtraWeights,
            stacklevel=2,
        )
    return model


def _named_as(state: dict[str, Tensor], needed: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict by the names of a model, where a wrapper has put something before all of them."""
    if not needed or all(name in state for name in needed):
        return state
    plain = {name.replace("_orig_mod.", ""): values for name, values in state.items()}
    for found in (state, plain):
        for prefix in _prefixes(found, needed):
            if all(prefix + name in found for name in needed):
                start = len(prefix)
                return {(k[start:] if k.startswith(prefix) else k): v for k, v in found.items()}
        for prefix in _prefixes(needed, found):
            if all(name.startswith(prefix) and name.removeprefix(prefix) in found for name in needed):
                return {prefix + name: values for name, values in found.items()}
    for prefix in WRAPPERS:  # some names are missing all the same: have the rest told by their own
        if plain and all(name.startswith(prefix) for name in plain):
            plain = {name.removeprefix(prefix): values for name, values in plain.items()}
    return plain


def _prefixes(longer: Mapping[str, Any], shorter: Mapping[str, Any]) -> list[str]:
    """What may stand before the names of one, to make those of the other: by its first name."""
    first = next(iter(shorter), "")
    found = [name[: -len(first)] for name in longer if name == first or name.endswith(f".{first}")]
    return sorted(set(found), key=len)


def _tied(state: Mapping[str, Tensor], needed: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors that a file has once and a model under several names."""
    owners = {t.data_ptr(): state[name] for name, t in needed.items() if name in state and t.numel()}
    return {
        name: owners[tensor.data_ptr()]
        for name, tensor in needed.items()
        if name not in state and tensor.numel() and tensor.data_ptr() in owners
    }


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
    if path.suffix not in SUFFIXES:
        raise ValueError(f"weights {str(path)!r} must be a .safetensors or .pt file")
    if path.suffix != ".safetensors" and zipfile.is_zipfile(path):
        require_archive(path)
    if path.suffix == ".safetensors" and (ours := _exported(path)) is not None:
        return ours
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        why = "it holds more than tensors, or nothing; save model.state_dict()"
        raise ValueError(f"weights {str(path)!r} can't be read ({why})") from None
    except Exception as error:  # safetensors and PyTorch raise classes of their own
        raise ValueError(f"weights {str(path)!r} can't be read ({told(error)})") from None
    found = _within(state)
    if found is not None:
        return found
    items = state.items() if isinstance(state, Mapping) else ()
    nested = [str(name) for name, value in items if isinstance(value, Mapping)]
    hint = f", but perhaps one under {nested[0]!r}: save that alone" if nested else ""
    raise ValueError(f"weights {str(path)!r} can't be read (it holds no state dict{hint})")


def _exported(path: Path) -> dict[str, Tensor] | None:
    """The state dict of a file of `cbs export`, whose tensors are compressed; None for any other file.

    Raises:
        ValueError: in one line, for a file of `cbs quantize`, or one that is damaged.
    """
    from cbs.deploy.stored import KEY, read
    from cbs.quantization.stored import FORMAT

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except Exception:  # of classes of its own; whoever reads the file says what is wrong with it
        return None
    if header.get("format") == FORMAT:
        raise ValueError(f"weights {str(path)!r} are in few bits; cbs.load_quantized reads them into a model")
    if KEY not in header:
        return None
    try:
        about, tensors = read(path)
    except ValueError as error:
        raise ValueError(f"weights {error}") from None
    return tensors | {name: tensors[twin] for name, twin in about["tied"].items()}


def _within(state: Any, depth: int = 2) -> dict[str, Tensor] | None:
    """The state dict that a checkpoint holds, itself or under one of `STATES`."""
    if not isinstance(state, Mapping) or not state:
        return {} if isinstance(state, Mapping) else None
    if all(isinstance(value, Tensor) for value in state.values()):
        return {str(name): value for name, value in state.items()}
    for name in STATES if depth else ():
        if isinstance(state.get(name), Mapping) and state[name]:
            return _within(state[name], depth - 1)
    return None
