"""Numbers and lists in sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence


def several(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun: `1 cell`, `1,204 cells`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def listed(words: Iterable[object], most: int = 6) -> str:
    """Words with commas; of many, the first and how many more."""
    found = [str(word) for word in words]
    if len(found) > most:
        return f"{', '.join(found[: most - 1])} and {len(found) - most + 1} more"
    return " and ".join([", ".join(found[:-1]), found[-1]]) if len(found) > 1 else "".join(found)


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage; what is not known as a dash."""
    return "-" if not math.isfinite(share) else f"{100 * share:.{digits}f}%"


def seconds(value: float) -> str:
    """A time in a unit that reads well."""
    if not math.isfinite(value):
        return "-"
    if value < 1:
        return f"{1000 * value:.3g} ms"
    return (
        f"{value:.3g} s"
        if value < 600
        else f"{value / 60:.3g} min"
        if value < 36000
        else f"{value / 3600:.3g} h"
    )


def leaders(scores: Mapping[str, float], best: Callable[[Iterable[float]], float] = max) -> list[str]:
    """Names of the best score, all of them where several have it."""
    top = best(scores.values())
    return [name for name, score in scores.items() if score == top]


def left_out(reasons: dict[str, str]) -> str:
    """Who is left out and why, as a sentence after others; nothing if nobody is."""
    by: dict[str, list[str]] = {}
    for name, why in reasons.items():
        by.setdefault(why, []).append(name)
    told = [f"{listed(names)} ({why})" for why, names in by.items()]
    return f" Left out: {'; '.join(told)}." if told else ""


def joined(parts: Sequence[str]) -> str:
    """Sentences that are not empty, with spaces between."""
    return " ".join(part.strip() for part in parts if part)
