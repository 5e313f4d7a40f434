"""The index of a library, `index.json`: every instance with its best value and bound, readable by eye.

Written whole or not at all. Whoever changes it holds a lock, reads it anew and puts in what is better, so
that two processes that work on one library lose nothing of each other's.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from solvers.runtime.writing import replacing

if sys.platform != "win32":
    import fcntl

FORMAT = "cbs instances"
SCHEMA = 1
"""Of the index; one with a higher number is refused."""
INDEX = "index.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""Names of instances and of data, which become names of files."""
DIGEST = re.compile(r"[0-9a-f]{64}")
REQUIRED: Mapping[str, type | tuple[type, ...]] = {
    "digest": str, "network": str, "layers": list, "data": list, "rows": list, "m": int, "n": int,
    "variant": str, "budget": dict, "sparsity": (int, float),
}  # fmt: skip
OPTIONAL: Mapping[str, type | tuple[type, ...]] = {
    "value": (int, float), "bound": (int, float), "value_by": str, "bound_by": str, "certificate": str,
    "seconds": (int, float),
}  # fmt: skip


def empty() -> dict[str, Any]:
    """An index without instances."""
    return {"format": FORMAT, "schema": SCHEMA, "data": {}, "instances": {}}


def read_index(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The index of a library.

    Raises:
        ValueError: in one line: there is none, it is damaged, of a newer schema, or an entry is not what it
            should be.
    """
    path = Path(folder) / INDEX
    what = f"library {os.fspath(folder)!r}"
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{what} has no {INDEX}; make one with `cbs instances make -o FOLDER`") from None
    except OSError as error:
        raise ValueError(f"{what}: {INDEX} can't be read ({error.strerror})") from None
    try:
        found = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what}: {INDEX} is damaged: {str(error)[:100]}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{what}: {INDEX} is not one of {FORMAT!r}")
    schema = found.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise ValueError(f"{what}: {INDEX} has schema {schema!r}; it must be a whole number from 1")
    if schema > SCHEMA:
        raise ValueError(
            f"{what}: {INDEX} has schema {schema}, newer than the {SCHEMA} that this release reads; install "
            "a newer one"
        )
    for part in ("data", "instances"):
        if not isinstance(found.get(part), dict):
            raise ValueError(f"{what}: {INDEX} is damaged: {part!r} is not an object")
    parts = found.get("parts", [])
    if not isinstance(parts, list) or not all(
        isinstance(part, dict)
        and isinstance(part.get("settings"), dict)
        and isinstance(part.get("data"), list)
        for part in parts
    ):
        raise ValueError(f"{what}: {INDEX} is damaged: 'parts' is not a list of recipes' parts")
    for name, entry in found["data"].items():
        if not NAME.fullmatch(name) or not isinstance(entry, dict) or not _is_digest(entry.get("digest")):
            raise ValueError(f"{what}: {INDEX} is damaged: data {name!r:.60} lacks a digest")
    for name, entry in found["instances"].items():
        wrong = _wrong(name, entry, found["data"])
        if wrong:
            raise ValueError(f"{what}: {INDEX} is damaged: instance {name!r:.60}: {wrong}")
    return found


def write_index(folder: str | os.PathLike[str], index: Mapping[str, Any]) -> None:
    """Write the index of a library, whole or not at all.

    Raises:
        OSError: if it can't be written.
    """
    text = json.dumps(index, indent=1, allow_nan=False)
    with replacing(Path(folder) / INDEX) as file:
        file.write(f"{text}\n".encode())


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """The one who may change a library; others wait. Where the file system has no locks, nobody waits."""
    path = Path(folder) / ".lock"
    if sys.platform == "win32":
        yield
        return
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # not every file system has locks
            pass
        yield


def _wrong(name: str, entry: Any, data: Mapping[str, Any]) -> str | None:
    """What is wrong with an instance's entry, in words, or None."""
    if not NAME.fullmatch(name):
        return "a name has letters, digits, dots, dashes and underscores"
    if not isinstance(entry, dict):
        return "it is not an object"
    for field, kinds in REQUIRED.items():
        if field not in entry:
            return f"no {field!r}"
        if not isinstance(entry[field], kinds) or isinstance(entry[field], bool):
            return f"{field!r} is {entry[field]!r:.40}"
    for field, kinds in OPTIONAL.items():
        value = entry.get(field)
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            return f"{field!r} is {value!r:.40}"
        if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
            return f"{field!r} is not finite"
    if not 0 <= entry["sparsity"] <= 1:
        return f"'sparsity' is {entry['sparsity']!r:.40}"
    if not isinstance(entry["budget"].get("kind"), str):
        return f"'budget' is {entry['budget']!r:.40}"
    certificate = entry.get("certificate")
    if certificate is not None and not NAME.fullmatch(certificate):
        return f"'certificate' is {certificate!r:.40}"
    if not _is_digest(entry["digest"]):
        return f"'digest' is {entry['digest']!r:.40}"
    if not (len(entry["layers"]) == len(entry["data"]) == len(entry["rows"]) >= 1):
        return "'layers', 'data' and 'rows' must have one entry a layer"
    if not all(isinstance(word, str) for word in (*entry["layers"], *entry["data"])):
        return "'layers' and 'data' must list names"
    for part, rows in zip(entry["data"], entry["rows"], strict=True):
        if part not in data:
            return f"its data {part!r:.40} is not listed"
        if not isinstance(rows, list) or not all(type(row) is int and row >= 0 for row in rows) or not rows:
            return "'rows' must list the numbers of rows"
    return None


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and DIGEST.fullmatch(value) is not None


def _no_constant(word: str) -> float:
    raise ValueError(f"it holds {word}")
