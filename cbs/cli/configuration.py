"""Options from a TOML file, `--config FILE.toml`, and files that rerun a command.

A file has the options of commands by their names, at its top or in a table a command, which counts more:

    sparsity = [0.8, 0.9]

    [prune]
    model = "net.py:build"
    weights = "net.safetensors"
    time-limit = 60

What is given on the command line, or by an environment variable, counts more than the file, and the file more
than defaults. Paths are relative to the file's folder.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbs.names import unknown

IDENTITY = "identity"
"""A table that no command reads as options: digests of the network and data that a file was written for."""
SOURCES = ("model", "data", "test", "loss")
"""Options that may name an object of a file, `FILE.py:NAME`."""
LARGEST = 1 << 20
"""Bytes of a file that is read."""


def read(path: Path) -> dict[str, Any]:
    """The tables of a configuration file.

    Raises:
        ValueError: in one line, for what can't be read or is no TOML.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(f"config {str(path)!r} can't be read ({error.strerror})") from None
    if len(data) > LARGEST:
        raise ValueError(f"config {str(path)!r} is larger than a mebibyte; give a TOML file of options")
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # not TOML, or not UTF-8
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"config {str(path)!r} is not TOML ({why})") from None


@dataclass(frozen=True)
class Known:
    """An option, or an argument, of a command.

    Attributes:
        parameter: name of the function's parameter.
        kind: of a value: `bool`, `int`, `float`, `Path` or `str`.
        several: whether it takes several values.
    """

    parameter: str
    kind: type
    several: bool


def settings(path: Path, command: str, commands: Sequence[str], known: Mapping[str, Known]) -> dict[str, Any]:
    """What a configuration file says for one command, by parameter, ready to stand in for what is not typed.

    Args:
        path: of the file.
        command: its name.
        commands: names of all commands, which tables may have.
        known: what the command takes, by names as they are typed, without dashes in front.

    Raises:
        ValueError: in one line, for an unknown option (with the nearest name) or a value of another kind.
    """
    tables = read(path)
    head = f"config {str(path)!r}: "
    for name, value in tables.items():
        if isinstance(value, Mapping) and name not in commands and name != IDENTITY:
            raise ValueError(head + unknown("table", name, commands))
    found: dict[str, Any] = {}
    shared = {name: value for name, value in tables.items() if not isinstance(value, Mapping)}
    for options in (shared, tables.get(command, {})):
        given: dict[str, str] = {}
        for key, value in options.items():
            name = key.replace("_", "-")
            if name not in known:
                raise ValueError(head + unknown(f"option of cbs {command}", key, list(known)))
            if name in given:
                raise ValueError(f"{head}{given[name]!r} and {key!r} are one option; give it once")
            given[name] = key
            found[known[name].parameter] = _fitted(f"{head}{key}", value, known[name], path.parent)
    return found


def identity(path: Path) -> dict[str, Any]:
    """The digests that a configuration file was written for; none if it has none."""
    found = read(path).get(IDENTITY, {})
    return dict(found) if isinstance(found, Mapping) else {}


def write(command: str, options: Mapping[str, Any], folder: Path, *, remarks: Sequence[str] = ()) -> str:
    """A configuration file that asks a command for the same again.

    Args:
        command: its name.
        options: by name; those that are None or empty are left out. Paths are written as seen from `folder`
            where both lie under the working directory, so that all may be moved together, else in full.
        folder: the file's.
        remarks: lines to begin with.
    """
    lines = [*(f"# {' '.join(remark.split())}" for remark in remarks), f"[{command}]"]
    for name, value in options.items():
        if value is None or value == []:
            continue
        if isinstance(value, Path):
            value = _seen_from(value, folder)
        elif name in SOURCES and (at := _file_of(value)) is not None:
            value = f"{_seen_from(at[0], folder)}:{at[1]}"
        lines.append(f"{name.replace('_', '-')} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _seen_from(path: Path, folder: Path) -> str:
    """A path that a file in a folder may hold."""
    whole, here = os.path.abspath(path), os.getcwd()
    inside = all(os.path.commonpath([here, p]) == here for p in (whole, os.path.abspath(folder)))
    return os.path.relpath(whole, folder) if inside else whole


def _file_of(value: object) -> tuple[Path, str] | None:
    """Path and name of `FILE.py:NAME`, if it is that."""
    path, _, name = str(value).rpartition(":")
    return (Path(path), name) if path.endswith(".py") else None


def _toml(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _fitted(what: str, value: Any, option: Known, folder: Path) -> Any:
    """A value as the parser takes it from a command line."""
    if option.several:
        values = value if isinstance(value, list) else [value]
        return [_one(what, item, option, folder) for item in values]
    if isinstance(value, list) and option.kind is str:  # `stages = [0.5, 0.8]` is typed with commas
        return ",".join(_one(what, item, option, folder) for item in value)
    return _one(what, value, option, folder)


def _one(what: str, value: Any, option: Known, folder: Path) -> Any:
    kind, flag = option.kind, isinstance(value, bool)
    takes, words = {
        bool: (flag, "true or false"),
        int: (isinstance(value, int) and not flag, "a whole number"),
        float: (isinstance(value, int | float) and not flag, "a number"),
        Path: (isinstance(value, str), "a path"),
        str: (isinstance(value, str | int | float) and not flag, "a text"),
    }[kind]
    if not takes:
        raise ValueError(f"{what} must be {words}, got {value!r}")
    if kind is Path:
        return str(_seen_by(folder, value))
    if option.parameter in SOURCES and (at := _file_of(value)) is not None:
        return f"{_seen_by(folder, at[0])}:{at[1]}"
    return str(value) if kind is str else value


def _seen_by(folder: Path, path: str | Path) -> Path:
    """A path of a file in a folder, as seen from where the command runs."""
    return Path(os.path.normpath(folder / Path(path).expanduser()))
