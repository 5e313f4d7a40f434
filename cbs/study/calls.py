"""Functions of Python files by name, `FILE.py:NAME` or `package.module:NAME`: the work of call cells."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

from cbs.names import unknown
from cbs.study.settings import REQUIRED, Key, integer, taken

MOST = 1_000_000
"""Cells that a grid may span."""


def function(place: str) -> Callable[..., Any]:
    """The function of a name.

    The folder of a file is on the path while it is imported, so that it may import its neighbours.

    Raises:
        ValueError: in one line, for a file or function that is not there, or can't be imported.
    """
    module, colon, name = place.rpartition(":")
    if not colon:
        raise ValueError(f"function {place!r} must be FILE.py:NAME or package.module:NAME")
    found = _file(Path(module)) if module.endswith(".py") else _module(module)
    if not hasattr(found, name):
        known = [each for each, what in vars(found).items() if inspect.isfunction(what)]
        raise ValueError(f"function {place!r}: {unknown('name', name, known)}")
    made: Any = getattr(found, name)
    if not callable(made):
        raise ValueError(f"function {place!r} is {type(made).__name__}, no function")
    return made  # type: ignore[no-any-return]


def absolute(place: str, folder: Path) -> str:
    """A function's name with the file's whole path."""
    module, _, name = place.rpartition(":")
    if not module.endswith(".py"):
        return place
    return f"{(folder / module).resolve()}:{name}"


def signature_of(place: str, made: Callable[..., Any]) -> inspect.Signature:
    """The parameters of a function.

    Raises:
        ValueError: in one line, for one of compiled code that does not tell them.
    """
    try:
        return inspect.signature(made)
    except (TypeError, ValueError):
        raise ValueError(f"function {place!r} does not tell its parameters; give one of Python") from None


def check_parameters(place: str, made: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raise ValueError, with the nearest name, unless a function can be called with these parameters."""
    signature = signature_of(place, made)
    try:
        signature.bind(**given)
    except TypeError as error:
        anything = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        wrong = [name for name in given if name not in signature.parameters]
        if wrong and not anything:
            raise ValueError(
                f"function {place!r}: {unknown('parameter', wrong[0], list(signature.parameters))}"
            ) from None
        raise ValueError(f"function {place!r}: {error}") from None


def grid(table: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Every combination of a grid's values, each with every case.

    Args:
        table: with `grid`, lists of values by parameter, where what is no list is one value, but for a range
            `{from = 0, to = 100, step = 10}`, whose end is left out; and `cases`, a list of mappings of
            parameters, or None.
        where: it stands, for complaints.
    """
    axes = {name: _axis(value, f"{where}: grid {name}") for name, value in table["grid"].items()}
    spanned = math.prod(map(len, axes.values()))
    if spanned > MOST:
        raise ValueError(f"{where}: grid spans {spanned:,} cells, more than {MOST:,}")
    if empty := next((name for name, values in axes.items() if not values), None):
        raise ValueError(f"{where}: grid {empty} is empty")
    cases = table["cases"] if table["cases"] is not None else [{}]
    if cases == []:
        raise ValueError(f"{where}: cases is empty")
    if not isinstance(cases, list) or not all(isinstance(case, Mapping) for case in cases):
        raise ValueError(f"{where}: cases must be a list of tables of parameters")
    crossed = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    return [{**each, **case} for case in cases for each in crossed]


def _axis(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, Mapping) or "from" not in value:
        return value if isinstance(value, list) else [value]
    keys = {"from": Key(integer(0), REQUIRED), "to": Key(integer(1), REQUIRED), "step": Key(integer(1), 1)}
    ends = taken(value, keys, where)
    return range(ends["from"], ends["to"], ends["step"])


def told(error: BaseException) -> str:
    """What a function of the study raised, in a line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'without a word'}"


def _file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise ValueError(f"function file {str(path)!r} is not there")
    name = f"cbs_study_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ValueError(f"function file {str(path)!r} can't be imported ({told(error)})") from None
    finally:
        sys.path.remove(str(path.parent))
    return module


def _module(name: str) -> ModuleType:
    if not name or name.startswith("."):
        raise ValueError(f"function module {name!r} must be a whole name, as package.module")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"function module {name!r} can't be imported ({error})") from None
    except Exception as error:
        raise ValueError(f"function module {name!r} can't be imported ({told(error)})") from None
