"""Networks in files: compressed tensors and a description in one safetensors file, and the way back.

The file's header has the description under `cbs`, as JSON: format and version, how the network is made, the
sizes of its modules, the form of every tensor, and a SHA-256 digest of all. Beside it lies the same as a
`.json` file, for people and for other tools; loading needs the safetensors file alone. Nothing is ever
unpickled.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from cbs.data import first_line
from cbs.deploy.alike import difference
from cbs.deploy.compressed import compress, restore
from cbs.deploy.structure import Unknown, build, describe, facts_of, narrow
from cbs.network.surgery import clone
from cbs.quantization.stored import PackedLayer
from solvers.runtime.writing import replacing

FORMAT = "cbs-network"
VERSION = 1
KEY = "cbs"
"""Of the description in the header."""


@dataclass(frozen=True)
class Written:
    """A network that was written.

    Attributes:
        description: what the file says of it.
        reason: why `cbs.load` needs the network or its constructor; None if it needs the file alone.
        bytes: of the file.
    """

    description: Mapping[str, Any]
    reason: str | None
    bytes: int


def write(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    builder: str | None = None,
    packed: Mapping[str, PackedLayer] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Written:
    """Write a network without masks. The file is read back before it takes its place.

    Args:
        model: the network.
        path: of the file; the description is written beside it, with the ending `.json`.
        builder: `package.module:name` of what makes the network, or a larger one.
        packed: layers in few bits, by name.
        facts: more to put down, ready for JSON.

    Raises:
        ValueError: in one line, if the network holds what can't be stored, `builder` does not make it, or a
            JSON file beside it is somebody else's.
        OSError: if a file can't be written.
    """
    beside = _require_ours(Path(path))
    state, tied = _state(model)
    pieces: dict[str, Tensor] = {}
    tensors: dict[str, Any] = {}
    for name, tensor in state.items():
        layer = (packed or {}).get(name.removesuffix(".weight")) if name.endswith(".weight") else None
        try:
            tensors[name], parts = compress(tensor, layer)
        except ValueError as error:
            raise ValueError(f"{name!r}: {first_line(error)}") from None
        pieces |= {f"{name}:{end}": part.contiguous() for end, part in parts.items()}
    description, reason = _description(model, state, tied, builder)
    about = {
        "format": FORMAT,
        "version": VERSION,
        "by": f"combinatorial-brain-surgeon {importlib.metadata.version('combinatorial-brain-surgeon')}",
        "model": description,
        "modules": facts_of(model),
        "tensors": tensors,
        "tied": tied,
        **(facts or {}),
    }
    about["digest"] = digest(about, pieces)
    data = save_bytes(pieces, {KEY: json.dumps(about, allow_nan=False)})
    found = _restored(about, load_bytes(data))
    for name, tensor in state.items():
        if not torch.equal(found[name].nan_to_num(), tensor.detach().cpu().nan_to_num()):
            raise ValueError(f"{name!r} does not come back from the file as it was")
    with replacing(path) as file:
        file.write(data)
    with replacing(beside) as file:
        file.write(f"{json.dumps(about, indent=1, allow_nan=False)}\n".encode())
    return Written(about, reason, len(data))


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the tensors of a file.

    Raises:
        ValueError: in one line, if it is no such file, damaged, or of a newer version.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"path must be a file's, got {path!r}")
    what = repr(os.fspath(path))
    if os.path.splitext(path)[1] == ".json" and os.path.isfile(Path(path).with_suffix(".safetensors")):
        raise ValueError(f"{what} is the description alone; give the .safetensors file beside it")
    if not os.path.isfile(path):
        raise ValueError(f"{what} is not a file; give one that cbs export wrote")
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            header = (file.metadata() or {}).get(KEY)
            names = [] if header is None else [*file.keys()]
            pieces = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise ValueError(f"{what} can't be read ({first_line(error)})") from None
    if header is None:
        raise ValueError(f"{what} holds no exported network; cbs export writes such files")
    try:
        about = json.loads(header)
        if about.get("format") != FORMAT:
            raise ValueError("it is of another format")
        version = about["version"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{what} is damaged ({first_line(error)})") from None
    if version != VERSION:
        raise ValueError(
            f"{what} is of version {version!r}, and this package reads {VERSION}; update the package"
        )
    try:
        if about.pop("digest") != digest(about, pieces):
            raise ValueError("its digest is another")
        tensors = _restored(about, pieces)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        raise ValueError(f"{what} is damaged ({first_line(error)})") from None
    return about, tensors


def rebuild(
    path: str | os.PathLike[str], model: nn.Module | Callable[[], nn.Module] | None = None
) -> nn.Module:
    """The network of a file, in evaluation mode, with plain weights.

    Args:
        path: of the file.
        model: the network that was pruned or a function that makes one, for classes that can't be made
            without arguments; it is copied, its weights do not matter, and layers that the file has smaller
            become so.

    Raises:
        ValueError: in one line, for a bad file or another network's.
    """
    about, tensors = read(path)
    what = repr(os.fspath(path))
    if model is None:
        try:
            made = build(about["model"])
        except Unknown as error:
            raise ValueError(
                f"{what} needs the network that it was made of: {error}; give it as model="
            ) from None
    elif isinstance(model, nn.Module):
        made = clone(model)
    elif callable(model):
        try:
            made = model()
        except Exception as error:  # whatever the user's function raises
            why = f"{type(error).__name__}: {first_line(error)}"
            raise ValueError(f"model must be a network or make one without arguments ({why})") from None
    else:
        made = model
    if not isinstance(made, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module or make one, got {type(made).__name__}")
    try:
        return narrow(made, tensors, about["modules"], about["tied"]).eval()
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{what} does not fit {type(made).__name__} ({first_line(error)})") from None


def digest(about: Mapping[str, Any], pieces: Mapping[str, Tensor]) -> str:
    """SHA-256 of a description, but for its digest, and of all pieces."""
    found = hashlib.sha256(json.dumps(about, sort_keys=True, allow_nan=False).encode())
    for name in sorted(pieces):
        piece = pieces[name].contiguous()
        found.update(f"\0{name}\0{piece.dtype}\0{[*piece.shape]}\0".encode())
        found.update(piece.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _description(
    model: nn.Module, state: Mapping[str, Tensor], tied: Mapping[str, str], builder: str | None
) -> tuple[dict[str, Any], str | None]:
    """How to make the network, tried; and why it can't be, or None.

    Raises:
        ValueError: if a builder is given and does not make it.
    """
    description = describe(model, builder)
    try:
        json.dumps(description, allow_nan=False)
        made = build(description)
        narrow(made, {k: v.detach().cpu().clone() for k, v in state.items()}, facts_of(model), tied)
        why = difference(model, made)
    except (Unknown, ValueError, TypeError, AttributeError, RecursionError) as error:
        why = first_line(error)
    if why is None:
        return description, None
    if builder is not None:
        raise ValueError(f"builder {builder!r} does not make this network ({why})")
    name = f"{type(model).__module__}:{type(model).__qualname__}"
    return {"kind": "none", "class": name}, why


def _state(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A network's tensors by name, each once, and the names of those that are another.

    Raises:
        ValueError: for what is no tensor.
    """
    state: dict[str, Tensor] = {}
    places: dict[Any, str] = {}
    tied: dict[str, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name!r} of the state dict is {type(tensor).__name__}, not a tensor")
        place: Any = id(tensor)
        if tensor.numel() and tensor.layout is torch.strided and not tensor.is_meta:
            place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if place in places:
            tied[name] = places[place]
        else:
            state[name], places[place] = tensor, name
    return state, tied


def _restored(about: Mapping[str, Any], pieces: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of a file."""
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, piece in pieces.items():
        name, _, end = key.rpartition(":")
        parts[name][end] = piece
    if not isinstance(about["tied"], dict) or parts.keys() != about["tensors"].keys():
        raise ValueError("its tensors are not those that it describes")
    return {name: restore(form, parts[name]) for name, form in about["tensors"].items()}


def _require_ours(path: Path) -> Path:
    """The place of the description.

    Raises:
        ValueError: if a file that is no such description is there.
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"path {os.fspath(path)!r} must end in .safetensors")
    beside = path.with_suffix(".json")
    if beside.exists():
        try:
            ours = json.loads(beside.read_bytes()).get("format") == FORMAT
        except (OSError, ValueError, AttributeError, RecursionError):
            ours = False
        if not ours:
            raise ValueError(
                f"path {os.fspath(path)!r}: the description would replace {os.fspath(beside)!r}, which is "
                "another file; name the network otherwise"
            )
    return beside
