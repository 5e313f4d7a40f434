"""How a network is made again from a description: model serialization without pickle.

A description is one of five: `stock`, a tree of torch's own modules with the arguments that make each;
`class`, an importable class that is made without arguments; `config`, a class made of a configuration, as in
transformers; `builder`, a function that makes the network; or `none`, for which the network must be given.
Whatever is made is then narrowed: its parameters take the shapes that are stored, and its modules the sizes
that go with them.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cbs.data import first_line

RECURRENT = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
"""Arguments of LSTM, GRU and RNN, whose signatures do not tell."""
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
BUILDS = ("stock", "class", "config", "builder", "none")

Facts = dict[str, dict[str, Any]]
"""For every module that holds tensors its sizes by attribute."""


class Unknown(ValueError):
    """A network can't be made from what is known of it."""


def describe(model: nn.Module, builder: str | None = None) -> dict[str, Any]:
    """The simplest description that may make such a network again; it is for the caller to try it.

    Args:
        model: any module.
        builder: `package.module:name` of a module or of a function without arguments that makes the network.
    """
    if builder is not None:
        return {"kind": "builder", "name": builder}
    try:
        return {"kind": "stock", "tree": _tree(model)}
    except Unknown:
        pass
    cls = type(model)
    name = f"{cls.__module__}:{cls.__qualname__}"
    if "<locals>" in name:
        return {"kind": "none", "class": name}
    config = getattr(model, "config", None)
    if callable(getattr(config, "to_dict", None)) and callable(getattr(type(config), "from_dict", None)):
        kind = f"{type(config).__module__}:{type(config).__qualname__}"
        values = config.to_dict()  # type: ignore[union-attr]
        return {"kind": "config", "class": name, "config": kind, "values": values}
    if _needs_arguments(cls):
        return {"kind": "none", "class": name}
    return {"kind": "class", "class": name}


def build(description: Mapping[str, Any]) -> nn.Module:
    """The network of a description, with whatever weights it is made with.

    Nothing stored is executed; for all but `stock` the module that is named is imported.

    Raises:
        Unknown: in one line, if it can't be made.
    """
    kind = description.get("kind")
    if kind == "none" or kind not in BUILDS:
        raise Unknown(f"class {description.get('class', 'unknown')} can't be made without arguments")
    try:
        with torch.random.fork_rng(devices=[]):
            if kind == "stock":
                return _grown(description["tree"])
            found = resolve(description["name" if kind == "builder" else "class"])
            if kind == "config":
                config = resolve(description["config"]).from_dict(description["values"])
                made = found(config)
            else:
                made = found if isinstance(found, nn.Module) else found()
    except Unknown:
        raise
    except Exception as error:  # whatever a constructor raises
        raise Unknown(
            f"{_named(description)} can't be made ({type(error).__name__}: {first_line(error)})"
        ) from None
    if not isinstance(made, nn.Module):
        raise Unknown(f"{_named(description)} makes {type(made).__name__}, not a torch.nn.Module")
    return made


def resolve(name: str) -> Any:
    """The object of `package.module:name`.

    Raises:
        Unknown: if it can't be found.
    """
    where, _, path = name.partition(":")
    try:
        found: Any = sys.modules[where] if where in sys.modules else importlib.import_module(where)
        for part in path.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {first_line(error)}"
        raise Unknown(f"{name} can't be imported ({why})") from None
    return found


def facts_of(model: nn.Module) -> Facts:
    """The sizes of every module that holds parameters or buffers of its own: `in_features`, `groups`, ..."""
    found: Facts = {}
    for name, module in model.named_modules():
        if module._parameters or module._buffers:
            sizes = {key: value for key, value in _plain(module) if _is_size(value)}
            if sizes:
                found[name] = {k: [*v] if isinstance(v, tuple | list) else v for k, v in sizes.items()}
    return found


def narrow(
    model: nn.Module, tensors: Mapping[str, Tensor], facts: Facts, tied: Mapping[str, str]
) -> nn.Module:
    """Put tensors into a network, in place, whatever shapes it had; its modules take the sizes of `facts`.

    Args:
        model: of the same parameters and buffers by name.
        tensors: its state dict, but for the names in `tied`.
        facts: what `facts_of` the stored network gave.
        tied: for names of tensors that are another one the other's name.

    Raises:
        ValueError: in one line, if the names are another network's.
    """
    there = {*model.state_dict(keep_vars=True)}
    stored = {*tensors, *tied}
    if there != stored:
        lacks, more = sorted(stored - there), sorted(there - stored)
        what = f"has no {lacks[0]!r}, which is stored" if lacks else f"has {more[0]!r}, which is not stored"
        raise ValueError(f"the network {what}; is it another architecture?")
    changed: set[str] = set()
    for name, values in tensors.items():
        owner, key = _owner(model, name)
        old = getattr(owner, key)
        if old.shape != values.shape:
            changed.add(name.rpartition(".")[0])
        if key in owner._buffers:
            owner._buffers[key] = values
        else:
            setattr(owner, key, nn.Parameter(values, requires_grad=old.requires_grad and _learns(values)))
    for name, twin in tied.items():
        (owner, key), (source, origin) = _owner(model, name), _owner(model, twin)
        setattr(owner, key, getattr(source, origin))
    for name in changed:
        module = model.get_submodule(name)
        for key, value in facts.get(name, {}).items():
            if (old := getattr(module, key, None)) is not None and _plainly(old) != value:
                setattr(module, key, tuple(value) if isinstance(value, list) else value)
    return model


def _tree(module: nn.Module) -> dict[str, Any]:
    """A module of torch's own as its class, its arguments and its children.

    Raises:
        Unknown: if it is none, or can't be made of its attributes.
    """
    cls = type(module)
    if not cls.__module__.startswith("torch.nn.modules.") or getattr(nn, cls.__name__, None) is not cls:
        raise Unknown(cls.__name__)
    if module._forward_pre_hooks or module._forward_hooks:
        raise Unknown("hooks")
    if cls in CONTAINERS:
        children = {name: _tree(child) for name, child in module._modules.items() if child is not None}
        return {"type": cls.__name__, "children": children}
    return {"type": cls.__name__, "arguments": dict(_arguments(module))}


def _arguments(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The arguments that make a module of torch's, read off its attributes."""
    if isinstance(module, nn.RNNBase):
        own = {nn.RNN: ["nonlinearity"], nn.LSTM: ["proj_size"]}.get(type(module), [])
        yield from ((name, getattr(module, name)) for name in (*RECURRENT, *own))
        return
    if type(module).__init__ is nn.Module.__init__:
        return
    for name, parameter in inspect.signature(type(module).__init__).parameters.items():
        if name in ("self", "device", "dtype") or name.startswith("_"):
            continue
        value = getattr(module, name, inspect.Parameter.empty)
        if name in ("bias", "add_bias_kv") and not isinstance(value, bool):
            value = (getattr(module, "in_proj_bias", value) if name == "bias" else module.bias_k) is not None
        if value is inspect.Parameter.empty:
            if parameter.default is inspect.Parameter.empty:
                raise Unknown(name)
            continue
        if not _is_plain(value):
            raise Unknown(name)
        yield name, [*value] if isinstance(value, tuple) else value


def _grown(tree: Mapping[str, Any]) -> nn.Module:
    cls = getattr(nn, str(tree["type"]), None)
    if not (inspect.isclass(cls) and issubclass(cls, nn.Module)):
        raise Unknown(f"torch.nn has no module {tree['type']!r}")
    if cls in CONTAINERS:
        made: nn.Module = cls()
        for name, child in tree["children"].items():
            made._modules[str(name)] = _grown(child)
        return made
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in tree["arguments"].items()}
    return cls(**given)


def _needs_arguments(cls: type) -> bool:
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return True
    some = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(p.default is p.empty and p.kind not in some for p in parameters)


def _named(description: Mapping[str, Any]) -> str:
    return str(description.get("class") or description.get("name") or description.get("kind"))


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, key = name.rpartition(".")
    return model.get_submodule(path), key


def _plain(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for key, value in vars(module).items():
        if not key.startswith("_") and key != "training" and _is_plain(value):
            yield key, value


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _plainly(value: Any) -> Any:
    return [*value] if isinstance(value, tuple | list) else value


def _is_size(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return bool(value) and all(type(item) is int for item in value)
    return type(value) is int


def _learns(values: Tensor) -> bool:
    return values.is_floating_point() or values.is_complex()
