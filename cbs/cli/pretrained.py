"""Networks of `transformers` from a folder on this machine: its configuration, weights and tokenizer."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from cbs.cli.weights import told

PREFIX = "hf:"
"""Before a folder's name, says that it is one of `transformers`."""
CONFIG = "config.json"
"""What such a folder has."""


def is_folder(model: str) -> bool:
    """Whether a model's name is that of a folder that `transformers` has written."""
    return model.startswith(PREFIX) or (Path(model) / CONFIG).is_file()


def load_pretrained(model: str) -> nn.Module:
    """A network of the architecture that its configuration names, in evaluation mode, with its weights.

    Weights are read from `.safetensors` files alone: nothing in a file is executed, no code of the folder
    either, and nothing is downloaded.

    Args:
        model: a folder, `hf:` before it or not.

    Raises:
        ValueError: in one line, if `transformers` is not installed, or the folder can't be loaded.
    """
    folder = _folder(model)
    _require()
    import transformers

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        names = config.get("architectures") or ["AutoModel"]
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"model {model!r}: {CONFIG} can't be read ({told(error)})") from None
    kind = getattr(transformers, str(names[0]), None)
    if kind is None:
        raise ValueError(
            f"model {model!r} is a {names[0]}, which transformers {transformers.__version__} has not; code "
            "that comes with a model is not run: give package.module:name of a function that makes it"
        )
    try:
        with _quietly():
            found = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except Exception as error:  # of many classes
        raise ValueError(f"model {model!r} can't be loaded ({told(error)})") from None
    if not isinstance(found, nn.Module):
        raise ValueError(f"model {model!r} is no PyTorch network, but {type(found).__name__}")
    return found.eval()


def load_tokenizer(model: str) -> Any:
    """The tokenizer of a folder, with a token for padding.

    Raises:
        ValueError: in one line, if there is none.
    """
    folder = _folder(model)
    _require()
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of many classes
        raise ValueError(f"model {model!r} has no tokenizer that can be loaded ({told(error)})") from None
    if found.pad_token is None:
        found.pad_token = found.eos_token or found.unk_token
    return found


@contextmanager
def _quietly() -> Iterator[None]:
    """Without progress bars of `transformers`."""
    from transformers.utils import logging as found

    logging: Any = found
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _folder(model: str) -> Path:
    folder = Path(model.removeprefix(PREFIX))
    if not (folder / CONFIG).is_file():
        raise ValueError(
            f"model {model!r}: there is no {str(folder / CONFIG)!r}; give a folder that save_pretrained has "
            "written"
        )
    return folder


def _require() -> None:
    if importlib.util.find_spec("transformers") is None:
        raise ValueError("models of transformers need the package transformers; pip install transformers")
