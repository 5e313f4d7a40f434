"""Names that are asked for, held against those that there are; and names of functions."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any


def check_name(kind: str, name: str, known: Sequence[str]) -> None:
    """Raise ValueError, with the nearest known name, unless `name` is one of `known`."""
    if name not in known:
        raise ValueError(unknown(kind, name, known))


def unknown(kind: str, name: str, known: Sequence[str]) -> str:
    """What to say of a name that is not among the known, with the nearest of these."""
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
    return f"unknown {kind} {name!r}; {hint}"


def place(what: Any) -> str:
    """A function, or an object's class, as `module:name`; what has a name already by that."""
    if isinstance(what, str):
        return what
    named = what if hasattr(what, "__qualname__") else type(what)
    place = f"{named.__module__}:{named.__qualname__}"
    return place.removeprefix("torch.nn.functional:")
