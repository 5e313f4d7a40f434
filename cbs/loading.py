"""A user's own model, data and weights, named on a command line."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from cbs.data import first_line


def load_object(spec: str) -> Any:
    """What `package.module:name` names; modules of the working folder can be named, too.

    Raises:
        ValueError: if it can't be imported, in one line.
    """
    module, colon, name = spec.partition(":")
    if not colon or not module or not name:
        raise ValueError(f"{spec!r} does not name an object; write it package.module:name")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{spec!r} can't be imported: {first_line(error)}") from None
    return found


def load_model(spec: str) -> nn.Module:
    """The network that `package.module:name` names: an instance, or a class or function that makes one.

    Raises:
        ValueError: if it is neither.
    """
    found = load_object(spec)
    made = found if isinstance(found, nn.Module) or not callable(found) else found()
    if not isinstance(made, nn.Module):
        raise ValueError(f"{spec!r} must be a torch.nn.Module or make one, got {type(made).__name__}")
    return made


def load_data(spec: str) -> Any:
    """The data that `package.module:name` names, in any form of `prune`; a function is called.

    Raises:
        ValueError: if it can't be imported.
    """
    found = load_object(spec)
    return found() if callable(found) else found


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Load a `.safetensors` file into a model, in place.

    Raises:
        ValueError: if there is no such file, it is not a safetensors file, or its tensors are not
            those of the model; the model is then left as it was.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"weights: {os.fspath(path)} can't be read as safetensors ({first_line(error)})"
        ) from None
    own = model.state_dict()
    for name in sorted(own.keys() | state.keys()):
        if name not in state or name not in own:
            what = f"has no {name!r}" if name not in state else f"has {name!r}, which the model lacks"
            raise ValueError(f"weights: {os.fspath(path)} is of another architecture: it {what}")
        if state[name].shape != own[name].shape:
            raise ValueError(
                f"weights: {os.fspath(path)} is of another architecture: {name!r} has shape "
                f"{list(state[name].shape)}, the model {list(own[name].shape)}"
            )
    with torch.no_grad():
        model.load_state_dict(state)
    return model
