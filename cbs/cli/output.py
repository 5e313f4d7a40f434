"""What commands write: numbers on standard output, progress and complaints on standard error."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table


def results() -> Console:
    """The console of results, on standard output; brackets and colons in names mean nothing to it."""
    return Console(markup=False, emoji=False, highlight=False)


def progress() -> Console:
    """The console of progress, on standard error."""
    return Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=not sys.stderr.isatty())


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: bool = False) -> None:
    """Print a table that cuts no word: where the words are too wide for it, a paragraph for every row.

    Args:
        headings: of the columns; a table of empty ones has none.
        rows: of cells; the first is the row's name.
        right: whether all columns but the first hold numbers.
    """
    console, rows = results(), list(rows)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=any(headings))
    for i, heading in enumerate(headings):
        table.add_column(heading, no_wrap=i == 0, justify="right" if right and i else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    if console.measure(table, options=console.options.update(max_width=1000)).minimum <= console.width:
        console.print(table)
        return
    for name, *cells in rows:
        print(name)
        for heading, cell in zip(headings[1:], cells, strict=True):
            print(f"  {heading}: {cell}" if heading else f"  {cell}")


def print_json(data: Any) -> None:
    """Print exactly one JSON object; infinities and NaN become null, which JSON has instead."""
    print(json.dumps(plain(data), allow_nan=False))


def plain(data: Any) -> Any:
    """Data as JSON can hold it: no arrays, no tuples, no infinities."""
    if isinstance(data, Mapping):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, np.ndarray):
        return plain(data.tolist())
    if isinstance(data, list | tuple):
        return [plain(item) for item in data]
    if isinstance(data, np.generic):
        return plain(data.item())
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    return os.fspath(data) if isinstance(data, os.PathLike) else data


def number(value: float | None) -> str:
    """A number for people: seven digits, `unknown` for what is not known."""
    return f"{value:.7g}" if value is not None and math.isfinite(value) else "unknown"


def percent(fraction: float | None) -> str:
    """A fraction in percent, `unknown` if infinite."""
    return f"{100 * fraction:.3g}%" if fraction is not None and math.isfinite(fraction) else "unknown"


@contextmanager
def telling_interruption() -> Iterator[None]:
    """Say so on standard error when Ctrl-C ends a command before it has anything to print."""
    try:
        yield
    except KeyboardInterrupt:
        print("cbs: interrupted before there was a result", file=sys.stderr)
        raise


def remark(message: str) -> None:
    """Write one line on standard error."""
    print(f"cbs: {' '.join(message.split())}", file=sys.stderr)


def complain(message: str) -> int:
    """Write one line on standard error; returns the exit status of bad input."""
    remark(message)
    return 2
