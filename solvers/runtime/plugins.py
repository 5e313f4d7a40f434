"""Plug-ins: what other installed packages add to a registry, found through their entry points."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from importlib.metadata import EntryPoint, distributions
from typing import Any, TypeVar

T = TypeVar("T")


class PluginWarning(UserWarning):
    """A plug-in is left out: what it announces can't be loaded, or is not what the registry holds."""


def plugins(
    group: str, kind: type[T], taken: Collection[str], check: Callable[[T], object] = lambda found: None
) -> dict[str, T]:
    """What installed packages add to a registry, by name.

    A package announces it in its `pyproject.toml`, under the name that it has in the registry:

        [project.entry-points."cbs.solvers"]
        mine = "my_package:MySolver"

    The object is an instance of `kind`, or a class of it that is made without arguments; its `name`
    is the name announced. A broken one never stops the others: it is left out with a line of warning.

    Args:
        group: of entry points, such as `cbs.solvers`.
        kind: the class whose instances the registry holds.
        taken: names that are built in, which no plug-in may have.
        check: called with every instance; what it raises makes the plug-in a broken one.
    """
    known: dict[str, T] = {}
    for entry, package in _entries(group):
        try:
            if entry.name in taken or entry.name in known:
                raise ValueError(f"the name {entry.name!r} is taken")
            found: Any = entry.load()
            if isinstance(found, type) and issubclass(found, kind):
                found = found()
            if not isinstance(found, kind):
                raise TypeError(
                    f"it is a {type(found).__name__}, not a {kind.__module__}.{kind.__qualname__}"
                )
            if (name := getattr(found, "name", None)) != entry.name:
                raise ValueError(f"its name is {name!r}; announce it as that")
            check(found)
        except (Exception, SystemExit) as error:
            _leave_out(f"{group} {entry.name!r} of {package} ({entry.value})", error)
        else:
            known[entry.name] = found
    return known


def _entries(group: str) -> Iterator[tuple[EntryPoint, str]]:
    """Every entry point of a group once, with its package; of packages installed twice, the first counts."""
    seen = set()
    for package in distributions():
        try:
            name = package.metadata["Name"]
            entries = [] if name in seen else [*package.entry_points.select(group=group)]
        except Exception as error:
            _leave_out(f"{group} of {getattr(package, '_path', package)}", error)
            continue
        seen.add(name)
        for entry in entries:
            yield entry, name


def _leave_out(what: str, error: BaseException) -> None:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    warnings.warn(f"plug-in {what} is left out: {reason}", PluginWarning, stacklevel=4)
