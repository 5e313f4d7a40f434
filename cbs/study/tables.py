"""Tables that a study declares: values of its cells, aggregated over rows and columns, as Markdown."""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cbs.names import check_name
from cbs.study.calls import absolute, function
from cbs.study.frames import chosen, column, exploded
from cbs.study.schema import DONE
from solvers.runtime.writing import replacing

if TYPE_CHECKING:
    import pandas as pd

SHIFT = 1.0
"""Of the shifted geometric mean, in the unit of its values."""
Values = np.ndarray[Any, np.dtype[np.float64]]
Words = tuple[str, ...]


def geometric(values: Values) -> float:
    """The geometric mean `exp(mean(log x))`."""
    return float(np.exp(np.log(values).mean()))


def shifted(values: Values) -> float:
    """The shifted geometric mean `exp(mean(log(x + 1))) - 1`."""
    return float(np.exp(np.log(values + SHIFT).mean()) - SHIFT)


AGGREGATES: dict[str, Callable[[Values], float]] = {
    "mean": lambda values: float(values.mean()), "median": lambda values: float(np.median(values)),
    "least": lambda values: float(values.min()), "greatest": lambda values: float(values.max()),
    "sum": lambda values: float(values.sum()), "count": lambda values: float(len(values)),
    "geometric": geometric, "shifted": shifted,
    "deviation": lambda values: float(values.std(ddof=1)) if len(values) > 1 else math.nan,
}  # fmt: skip
"""By name: ways to make one number of several. `only` besides them takes what is one and the same."""


def table(frame: pd.DataFrame, asked: Mapping[str, Any], folder: Path, value: str | None = None) -> str:
    """A declared table as Markdown.

    Args:
        frame: of the study's cells.
        asked: a `[[tables]]` of its file.
        folder: of that, for a function's file.
        value: of the column that `into` names, for a function of two parameters.

    Raises:
        ValueError: for an unknown column or aggregate, or a format that is none.
    """
    if asked["function"] is not None:
        maker = function(absolute(asked["function"], folder))
        made = maker(frame, value) if _takes_two(maker) else maker(frame)
        if not isinstance(made, str):
            raise ValueError(f"table {asked['name']!r}: its function must give Markdown, a text")
        return made.strip() + "\n"
    try:
        return _pivot(frame, asked)
    except ValueError as error:
        raise ValueError(f"table {asked['name']!r}: {error}") from None


def _takes_two(maker: Callable[..., Any]) -> bool:
    return len(inspect.signature(maker).parameters) == 2


def _pivot(frame: pd.DataFrame, asked: Mapping[str, Any]) -> str:
    check_name("aggregate", asked["aggregate"], [*AGGREGATES, "only"])
    frame = frame[frame["state"] == DONE]
    if asked["each"] is not None:
        frame = exploded(frame, asked["each"])
    frame = chosen(frame, asked["where"])
    rows, columns = asked["rows"] or (), asked["columns"] or ()
    several = len(asked["value"]) > 1 or not columns
    keys, across = _words(frame, rows), _words(frame, columns)
    cells: dict[Words, dict[Words, list[Any]]] = {}
    heads: dict[Words, None] = {}
    for value in asked["value"]:
        for key, head, found in zip(keys, across, column(frame, value), strict=True):
            place = (*head, _last(value)) if several else head
            heads[place] = None
            cells.setdefault(key, {}).setdefault(place, []).append(found)
    order = list(heads) if several else sorted(heads, key=_order)
    lines = [_line([*map(_last, rows), *map(" ".join, order)]), "|---" * (len(rows) + len(order)) + "|"]
    for key in sorted(cells, key=_order):
        made = [_number(cells[key].get(head, []), asked) for head in order]
        lines.append(_line([*key, *_texts(made, asked)]))
    return "\n".join(lines) + "\n"


def _words(frame: pd.DataFrame, names: Sequence[str]) -> list[Words]:
    """For every cell what it has in some columns, in words."""
    found = [column(frame, name).tolist() for name in names]
    return [tuple(_word(values[i]) for values in found) for i in range(len(frame))]


def _last(name: str) -> str:
    """A column's name without the mapping that it is in."""
    return name.rpartition(".")[2]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _texts(values: Sequence[Any], asked: Mapping[str, Any]) -> list[str]:
    """The numbers of a row as they are shown, the best one in bold."""
    known = [value for value in values if isinstance(value, float) and math.isfinite(value)]
    best = None
    if asked["best"] and known:
        best = min(known) if asked["best"] == "least" else max(known)
    return [
        f"**{_text(value, asked['format'])}**"
        if best is not None and value == best
        else _text(value, asked["format"])
        for value in values
    ]


def _word(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _order(words: Words) -> tuple[tuple[int, float, str], ...]:
    return tuple(_sortable(word) for word in words)


def _sortable(word: str) -> tuple[int, float, str]:
    try:
        return (0, float(word), "")
    except ValueError:
        return (1, 0.0, word)


def _number(values: list[Any], asked: Mapping[str, Any]) -> Any:
    """One value of several; None where there is none."""
    known = [
        value
        for value in values
        if value is not None and not (isinstance(value, float) and math.isnan(value))
    ]
    if asked["aggregate"] == "count":
        return float(len(known))
    if not known:
        return None
    if asked["aggregate"] == "only" or isinstance(known[0], str):
        return known[0] if len({repr(value) for value in known}) == 1 else "several"
    return AGGREGATES[asked["aggregate"]](np.array(known, dtype=np.float64))


def _text(value: Any, form: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    try:
        return format(value, form)
    except ValueError:
        raise ValueError(f"format {form!r} is none of Python's for numbers") from None


def write(frame: pd.DataFrame, asked: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """Put a declared table into the document that it names, or one for every value of a column into its own.

    Where `into` has a column's name in braces, as `methods/{solver}.md`, there is a document for every value,
    with the table of the cells that have it; a function of two parameters is given all cells and the value.

    Yields:
        The documents.

    Raises:
        ValueError: for a document that can't be read or has no place for it.
    """
    found = re.search(r"\{([\w.]+)\}", asked["into"])
    if found is None:
        put(folder / asked["into"], asked["name"], table(frame, asked, folder))
        yield folder / asked["into"]
        return
    done = frame[frame["state"] == DONE]
    of = [_word(value) for value in column(done, found[1])]
    for value in dict.fromkeys(of):
        path = folder / asked["into"].replace(found[0], value)
        whole = asked["function"] and _takes_two(function(absolute(asked["function"], folder)))
        some = frame if whole else done[[word == value for word in of]]
        put(path, asked["name"], table(some, asked, folder, value))
        yield path


def put(path: str | os.PathLike[str], name: str, text: str) -> None:
    """Replace what stands in a document between `<!-- NAME: begin -->` and `<!-- NAME: end -->`.

    Both may have a remark after begin and end, as `(written by ...)`.

    Raises:
        ValueError: if these are not there, once each.
    """
    path = Path(path)
    try:
        document = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"document {str(path)!r} can't be read ({error.strerror})") from None
    mark = re.escape(name)
    places = [list(re.finditer(rf"<!-- {mark}: {end}\b[^>]*-->", document)) for end in ("begin", "end")]
    if any(len(found) != 1 for found in places) or places[0][0].end() > places[1][0].start():
        raise ValueError(
            f"document {str(path)!r} must have <!-- {name}: begin --> and after it <!-- {name}: end -->, "
            "once each"
        )
    made = f"{document[: places[0][0].end()]}\n\n{text.strip()}\n\n{document[places[1][0].start() :]}"
    if made != document:
        with replacing(path) as file:
            file.write(made.encode())
