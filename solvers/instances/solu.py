"""Solution files (`.solu`): the best value and bound of every instance of a library, a line each.

The format of MIPLIB and MINLPLib: `=opt= name value` where the value is proven optimal, else
`=best= name value` for the best mask and `=bestdual= name value` for the best bound; `=unkn= name` where
nothing is known. Values are loss increases, the unit of `SubsetProblem.value`, of the instance and of its
`.qplib` file; the objective of an `.mps` or `.lp` file has a unit of its own, which its first line says.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from solvers.runtime.writing import replacing

KINDS = ("=opt=", "=best=", "=bestdual=", "=unkn=", "=inf=")


@dataclass(frozen=True)
class Solu:
    """What a solution file says of an instance.

    Attributes:
        value: of the best solution, or None.
        bound: the best one, or None; the value itself where that is optimal.
        optimal: whether the value is proven optimal.
    """

    value: float | None = None
    bound: float | None = None
    optimal: bool = False


def write_solu(path: str | os.PathLike[str], known: Mapping[str, Solu]) -> None:
    """Write a solution file, whole or not at all.

    Raises:
        ValueError: for a name with a blank in it, or a number that is not finite.
        OSError: if it can't be written.
    """
    lines = []
    for name, entry in known.items():
        if not name or any(letter.isspace() for letter in name):
            raise ValueError(f"instance name {name!r} has a blank in it; a .solu file can't hold it")
        said = [("=best=", entry.value), ("=bestdual=", entry.bound)]
        if entry.optimal:
            said = [("=opt=", entry.value)]
        told = [(kind, value) for kind, value in said if value is not None]
        for kind, value in told:
            if not math.isfinite(value):
                raise ValueError(f"instance {name!r}: {value} is not finite; leave it out")
            lines.append(f"{kind:<10} {name} {value!r}\n")
        if not told:
            lines.append(f"{'=unkn=':<10} {name}\n")
    with replacing(path) as file:
        file.write("".join(lines).encode())


def read_solu(path: str | os.PathLike[str]) -> dict[str, Solu]:
    """Read a solution file.

    Returns:
        By the instance's name.

    Raises:
        ValueError: in one line, that names the file and the line that is wrong.
    """
    what = f"solution file {os.fspath(path)!r}"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} can't be read: {getattr(error, 'strerror', None) or error}") from None
    found: dict[str, Solu] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        kind = words[0]
        if kind not in KINDS:
            raise ValueError(f"{what}, line {number}: {kind!r:.40} is none of {', '.join(KINDS)}")
        bare = kind in ("=unkn=", "=inf=")
        if len(words) != (2 if bare else 3):
            raise ValueError(f"{what}, line {number}: {kind} takes a name{'' if bare else ' and a value'}")
        before = found.get(words[1], Solu())
        if bare:
            found[words[1]] = before
            continue
        try:
            value = float(words[2])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{what}, line {number}: {words[2]!r:.40} is not a finite number")
        if kind == "=opt=":
            found[words[1]] = Solu(value, value, True)
        elif kind == "=best=":
            found[words[1]] = Solu(value, before.bound, before.optimal)
        else:
            found[words[1]] = Solu(before.value, value, before.optimal)
    return found
