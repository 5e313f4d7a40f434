"""Tables of a study's file, held against what they may have: every key known, every value of its kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cbs.names import unknown
from cbs.study.cell import plain

Check = Callable[[Any], Any]
"""Gives the value as it is used; raises ValueError that says what would be right."""


@dataclass(frozen=True)
class Key:
    """A key of a table.

    Attributes:
        check: of its value.
        default: where it is absent; `REQUIRED` where it may not be.
    """

    check: Check
    default: Any = None


REQUIRED = object()


def taken(table: Any, keys: Mapping[str, Key], where: str) -> dict[str, Any]:
    """A table's values, with defaults.

    Args:
        table: as TOML has it.
        keys: that it may have.
        where: it stands, for complaints.

    Raises:
        ValueError: in one line, for an unknown key (with the nearest), a missing one, or a bad value.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"{where} must be a table, got {table!r:.60}")
    for name in table:
        if name not in keys:
            raise ValueError(f"{where}: {unknown('key', name, tuple(keys))}")
    found = {}
    for name, key in keys.items():
        if name in table:
            try:
                found[name] = key.check(table[name])
            except ValueError as error:
                raise ValueError(f"{where}: {name} {error}, got {table[name]!r:.80}") from None
        elif key.default is REQUIRED:
            raise ValueError(f"{where}: {name} is missing")
        else:
            found[name] = key.default
    return found


def text(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """A text, or several."""
    found: tuple[str, ...] = several(text)(value)
    return found


def one_of(*known: str) -> Check:
    """One of some words."""

    def check(value: Any) -> str:
        if value not in known:
            raise ValueError(f"must be one of {', '.join(known)}")
        return str(value)

    return check


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def integer(least: int, most: float = math.inf) -> Check:
    """A whole number in a range."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            upper = "" if most == math.inf else f" and at most {most:.0f}"
            raise ValueError(f"must be a whole number of at least {least}{upper}")
        return value

    return check


def number(least: float, most: float = math.inf, *, open_ends: bool = False) -> Check:
    """A finite number in a range, whose ends may be left out."""

    def check(value: Any) -> float:
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        inside = plain and (least < value < most if open_ends else least <= value <= most)
        if not inside or not math.isfinite(value):
            words = ("above", "below") if open_ends else ("at least", "at most")
            upper = "" if most == math.inf else f" and {words[1]} {most:g}"
            raise ValueError(f"must be a number {words[0]} {least:g}{upper}")
        return float(value)

    return check


def several(check: Check) -> Check:
    """A list of values, or one."""

    def each(value: Any) -> tuple[Any, ...]:
        values = value if isinstance(value, list | tuple) else [value]
        if not values:
            raise ValueError("must not be empty")
        found = tuple(check(one) for one in values)
        if len({repr(one) for one in found}) < len(found):
            raise ValueError("names something twice")
        return found

    return each


def integers(value: Any) -> int | tuple[int, ...]:
    """A whole number from 0, or a list of such."""
    found: tuple[int, ...] = several(integer(0))(value)
    return found if isinstance(value, list | tuple) else found[0]


def mapping(value: Any) -> dict[str, Any]:
    """A table of whatever keys."""
    if not isinstance(value, Mapping):
        raise ValueError("must be a table")
    return dict(_undated(value))


def cases(value: Any) -> Any:
    """Tables of whatever keys."""
    return _undated(value)


def _undated(value: Any) -> Any:
    try:
        plain(value)
    except TypeError as error:
        raise ValueError(f"must hold numbers, texts, lists and tables ({error})") from None
    return value


def span(check: Check) -> Check:
    """A number, or a pair of the least and the greatest."""

    def pair(value: Any) -> tuple[Any, Any]:
        ends = [check(one) for one in value] if isinstance(value, list | tuple) else [check(value)] * 2
        if len(ends) != 2 or ends[0] > ends[1]:
            raise ValueError("must be a number, or [least, greatest]")
        return ends[0], ends[1]

    return pair


def tables(value: Any, where: str) -> Sequence[Any]:
    """An array of tables, `[[NAME]]`."""
    if not isinstance(value, list):
        raise ValueError(f"must be an array of tables, [[{where}]]")
    return value
