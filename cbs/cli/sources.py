"""The model, weights and data that the command line names."""

from __future__ import annotations

import difflib
import errno
import functools
import importlib
import importlib.util
import inspect
import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from cbs.cli.files import SUFFIXES, is_file, read_data
from cbs.cli.pretrained import is_folder, load_pretrained, load_tokenizer
from cbs.cli.weights import fill, require_archive, told
from cbs.data import Split, digits, mnist
from cbs.network.losses import Loss, named_loss
from cbs.schedule.training import train
from cbs.zoo import digits_mlp, mlpnet, trained_digits_mlp

OWN = "package.module:name or FILE.py:name"
EMBEDDED = ("digits", "mlpnet")
FOLDER = "a folder of transformers (hf:FOLDER)"


@dataclass(frozen=True)
class Job:
    """What to prune, and the data to do it with."""

    model: nn.Module
    data: Any
    test: Any


def gather_job(
    model: str, weights: Path | None, data: str | None, test: str | None, data_dir: Path | None
) -> Job:
    """Find the model and its data, and train an embedded model that was given no weights.

    Args:
        model: `digits`, `mlpnet`, or `package.module:name` or `path/to/file.py:name` of a module or of a
            function or class that makes one; or a folder that `transformers` has written, `hf:` before it or
            not.
        weights: `.safetensors` or `.pt` state dict; for `mlpnet` also `.npz`.
        data: `package.module:name` of calibration data or of a function that returns it; a `Split`
            gives test data too; or a file, see `cbs.cli.files`. May be None for embedded models.
        test: the same, of held-out data; or None.
        data_dir: folder of the MNIST files.

    Raises:
        ValueError: for what can't be found, imported, or loaded into the model.
    """
    if model not in EMBEDDED and is_folder(model):
        return _pretrained(model, weights, data, test)
    if model.endswith(".py"):
        raise ValueError(f"model {model!r} is a file; say what in it is the model, or makes it: {model}:NAME")
    if model not in EMBEDDED and ":" not in model:
        near = difflib.get_close_matches(model, EMBEDDED, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"give {', '.join(EMBEDDED)}, {OWN}, or {FOLDER}"
        raise ValueError(f"unknown model {model!r}; {hint}")
    own = None if model in EMBEDDED else _module(model)
    if own is not None and data is None:
        raise ValueError(f"data is missing for model {model!r}; give --data {OWN}")
    found = None if data is None else _data("data", data)
    held_out = None if test is None else _data("test", test)
    if own is None:
        network, split = _embedded(model, weights, data_dir)
        found = split if found is None else found
    else:
        network = own if weights is None else fill(own, weights)
    if isinstance(held_out, Split):
        held_out = held_out.test
    if isinstance(found, Split):
        return Job(network, found.train, found.test if held_out is None else held_out)
    return Job(network, found, held_out)


def find_loss(name: str) -> Loss:
    """A loss by its name in `torch.nn.functional`, or `package.module:name` of a function or module.

    Raises:
        ValueError: for what can't be found or called.
    """
    if ":" not in name:
        return named_loss(name)
    found = _resolve("loss", name)
    if inspect.isclass(found):
        found = _call("loss", name, found)
    if not callable(found):
        raise ValueError(
            f"loss {name!r} is {type(found).__name__}; it must be called with outputs and targets"
        )
    return found  # type: ignore[no-any-return]


def _embedded(model: str, weights: Path | None, data_dir: Path | None) -> tuple[nn.Module, Split]:
    if model == "digits":
        return trained_digits_mlp() if weights is None else (fill(digits_mlp(), weights), digits())
    if weights is not None:
        if weights.suffix == ".npz" and not zipfile.is_zipfile(weights):
            raise ValueError(f"weights {str(weights)!r} is not an .npz file; mlpnet needs fc1, fc2 and fc3")
        if weights.suffix == ".npz":
            require_archive(weights)
        network = mlpnet(weights) if weights.suffix == ".npz" else fill(mlpnet(), weights)
        return network, mnist(data_dir)
    split, network = mnist(data_dir), mlpnet()
    train(network, split.train, epochs=5)
    return network, split


def _module(name: str) -> nn.Module:
    found = _resolve("model", name)
    if not isinstance(found, nn.Module) and callable(found):
        found = _call("model", name, found)
    if not isinstance(found, nn.Module):
        raise ValueError(
            f"model {name!r} is {type(found).__name__}; it must be a torch.nn.Module or make one"
        )
    return found


def _pretrained(model: str, weights: Path | None, data: str | None, test: str | None) -> Job:
    """A network of `transformers` with its data, which may be lines of text."""
    if data is None:
        raise ValueError(
            f"data is missing for model {model!r}; give --data {OWN}, or a file: {', '.join(SUFFIXES)}"
        )
    texts = any(name is not None and name.endswith(".txt") for name in (data, test))
    tokenizer = load_tokenizer(model) if texts else None
    found, held_out = (None if name is None else _data(kind, name, tokenizer) for kind, name in (
        ("data", data), ("test", test),
    ))  # fmt: skip
    network = load_pretrained(model)
    if weights is not None:
        fill(network, weights)
    held_out = held_out.test if isinstance(held_out, Split) else held_out
    if isinstance(found, Split):
        return Job(network, found.train, found.test if held_out is None else held_out)
    return Job(network, found, held_out)


def _data(kind: str, name: str, tokenizer: Any = None) -> Any:
    if is_file(name) and ":" not in name:
        return read_data(kind, name, tokenizer)
    if ":" not in name:
        raise ValueError(f"{kind} {name!r} must be given as {OWN}, or a file: {', '.join(SUFFIXES)}")
    found = _resolve(kind, name)
    makes = inspect.isroutine(found) or inspect.isclass(found) or isinstance(found, functools.partial)
    return _call(kind, name, found) if makes else found


def _resolve(kind: str, name: str) -> Any:
    """The object of a name: of a file, or of a module, which is looked for in the folder of the call too."""
    where, _, attribute = name.rpartition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = _module_of_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except FileNotFoundError as error:
        if error.filename != where:
            raise
        raise ValueError(f"{kind} {name!r}: there is no file {where!r}") from None
    except (Exception, SystemExit) as error:
        raise ValueError(f"{kind} {name!r}: importing {where!r} failed ({told(error)}); give {OWN}") from None
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            near = difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{kind} {name!r}: {where!r} has no {part!r}{hint}") from None
        except Exception as error:
            raise ValueError(f"{kind} {name!r}: {part!r} can't be had ({told(error)})") from None
    return found


def _module_of_file(path: Path) -> ModuleType:
    """The module of a file, which finds its neighbours as if it were run; imported once, however named.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    real = os.path.realpath(path)
    for module in list(sys.modules.values()):
        at = getattr(module, "__file__", None)
        if isinstance(at, str) and os.path.basename(at) == path.name and os.path.realpath(at) == real:
            return module
    folder, name = os.path.dirname(real), path.stem
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if not _is_free(name, real):
        name = f"file_{name}"  # as of `random.py`, whose name is another's
    spec = importlib.util.spec_from_file_location(name, real)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_free(name: str, real: str) -> bool:
    """Whether a module of that name is this file's, or nobody's."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is None or (spec.origin is not None and os.path.realpath(spec.origin) == real)


def _call(kind: str, name: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except (Exception, SystemExit) as error:
        raise ValueError(f"{kind} {name!r} must work without arguments, but failed ({told(error)})") from None


def find_model(name: str, weights: Path | None = None) -> nn.Module:
    """A model by its name, without data; embedded ones are not trained.

    Raises:
        ValueError: for what can't be found, or weights that are not its own.
    """
    if name == "mlpnet" and weights is not None and weights.suffix == ".npz":
        return mlpnet(weights)
    embedded: dict[str, Callable[[], nn.Module]] = {"digits": digits_mlp, "mlpnet": mlpnet}
    if name not in embedded and is_folder(name):
        network = load_pretrained(name)
        return network if weights is None else fill(network, weights)
    if name not in embedded and ":" not in name:
        raise ValueError(f"unknown model {name!r}; give {', '.join(EMBEDDED)}, or {OWN}")
    model = embedded[name]() if name in embedded else _module(name)
    return model if weights is None else fill(model, weights)


def find_data(name: str | None, model: str | None, data_dir: Path | None = None) -> Any:
    """Data by its name, or those of an embedded model; None where there are none.

    Raises:
        ValueError: for what can't be found.
    """
    if name is not None:
        found = _data("data", name)
    elif model in EMBEDDED:
        found = digits() if model == "digits" else mnist(data_dir)
    else:
        return None
    return found.train if isinstance(found, Split) else found
