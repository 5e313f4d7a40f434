"""What a problem or result shows of itself when it is printed: a few lines, and no arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(value: float | None) -> str:
    """A number for people: seven digits, `unknown` for what is not known."""
    return f"{value:.7g}" if value is not None and math.isfinite(value) else "unknown"


def percent(fraction: float | None) -> str:
    """A fraction in percent, `unknown` if infinite."""
    return f"{100 * fraction:.3g}%" if fraction is not None and math.isfinite(fraction) else "unknown"


def between(value: float | None, bound: float | None, gap: float | None) -> str:
    """Value, bound and gap."""
    return f"value {number(value)}, bound {number(bound)}, gap {percent(gap)}"


def first(lines: Sequence[str], most: int = 12) -> list[str]:
    """The first lines, and how many more there are."""
    if len(lines) <= most:
        return list(lines)
    return [*lines[: most - 1], f"... and {len(lines) - most + 1} more"]


def summary(title: str, *lines: str) -> str:
    """A title over indented lines."""
    return "\n  ".join([title, *lines])
