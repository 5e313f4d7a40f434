"""A cache of trained weights: what takes long to train is trained once for a user.

A file says which recipe it was made by and what its tensors hash to, so that one of another recipe, or a
damaged one, is made again. A cache that can't be written is no error; the network is trained each time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pooch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cbs.data import first_line
from solvers.runtime.writing import replacing

logger = logging.getLogger(__name__)

CACHE = "CBS_CACHE"
"""Environment variable that names the cache folder."""


def cache_folder() -> Path:
    """Where files are kept: the folder that `CBS_CACHE` names, or else the platform's place for caches."""
    return Path(os.environ.get(CACHE) or pooch.os_cache("combinatorial-brain-surgeon"))


def kept(name: str, recipe: Mapping[str, Any], model: nn.Module, fit: Callable[[nn.Module], None]) -> None:
    """Give a network its trained weights, from the cache or by training it.

    Args:
        name: of the network, for the file.
        recipe: whatever the weights depend on, as JSON can hold it.
        model: untrained; filled in place.
        fit: trains it in place.
    """
    asked = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    path = cache_folder() / "zoo" / f"{name}-{asked[:12]}.safetensors"
    state = _read(path, asked)
    if state is not None:
        model.load_state_dict(state)
        model.eval()
        return
    fit(model)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(save(state, {"recipe": asked, "content": _content(state)}))
    except OSError as error:
        logger.info("%s could not be kept in %s: %s", name, path.parent, error)


def _read(path: Path, asked: str) -> dict[str, Tensor] | None:
    """The tensors of a file, or None if it is not there, damaged, or of another recipe."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        logger.info("%s is made again: %s", path, first_line(error))
        return None
    if about.get("recipe") != asked or about.get("content") != _content(state):
        logger.info("%s is made again: it is damaged, or of another recipe", path)
        return None
    return state


def _content(state: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for key in sorted(state):
        values = state[key].detach().cpu().numpy()
        found.update(f"{key} {values.dtype} {values.shape} ".encode())
        found.update(values.tobytes())
    return found.hexdigest()
