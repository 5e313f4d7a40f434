"""What commands write: numbers on standard output, progress and complaints on standard error."""

from __future__ import annotations

import json
import math
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from cbs.cli.streams import unheard
from cbs.cli.tone import quiet
from solvers.runtime.plugins import PluginWarning
from solvers.runtime.writing import check_place
from solvers.summary import number as number
from solvers.summary import percent as percent

WIDEST, GAP = 1000, 2
"""Columns of a line that nobody limits, and between two cells."""


def results(width: int | None = None) -> Console:
    """The console of results, on standard output; brackets and colons in names mean nothing to it.

    Args:
        width: in columns; by default the terminal's, 80 where there is none.
    """
    return Console(markup=False, emoji=False, highlight=False, width=width)


def progress() -> Console:
    """The console of progress, on standard error; a mute one where nobody wants to be told of it."""
    return Console(
        stderr=True, quiet=quiet(), markup=False, emoji=False, highlight=False,
        soft_wrap=not sys.stderr.isatty(),
    )  # fmt: skip


def is_live(console: Console) -> bool:
    """Whether a console can show what moves."""
    return console.is_terminal and not console.is_dumb_terminal and not console.quiet


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: bool = False, wide: bool = False
) -> None:
    """Print a table that cuts no word: where the words are too wide for it, a paragraph for every row.

    Args:
        headings: of the columns; a table of empty ones has none.
        rows: of cells; the first is the row's name.
        right: whether all columns but the first hold numbers.
        wide: a line for every row, however wide that gets.
    """
    console, rows = results(), list(rows)
    if not rows:
        return
    whole = [right or not i for i in range(len(headings))]
    widths = _widths(headings, rows, WIDEST if wide else console.width, whole)
    if widths is not None:
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, show_header=any(headings))
        for i, (heading, width) in enumerate(zip(headings, widths, strict=True)):
            justify: Literal["left", "right"] = "right" if right and i else "left"
            table.add_column(heading, justify=justify, overflow="fold", width=width)
        for row in rows:
            table.add_row(*row)
        results(max(console.width, sum(widths) + GAP * (len(widths) - 1))).print(table)
        return
    for name, *cells in rows:
        print(name)
        for heading, cell in zip(headings[1:], cells, strict=True):
            print(_indented(f"{heading}: {cell}" if heading else cell, console.width))


def _widths(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int, whole: Sequence[bool]
) -> list[int] | None:
    """Widths of columns that break no word, the room that is left going where the longest texts are.

    Args:
        headings: of the columns.
        rows: of cells.
        width: of all together.
        whole: for every column whether its cells are not to be broken between words either.

    Returns:
        None if the words are too wide.
    """
    most, least = [], []
    for heading, cells, keep in zip(headings, zip(*rows, strict=True), whole, strict=True):
        long = max(map(cell_len, cells))
        words = [*heading.split(), *([] if keep else (word for cell in cells for word in cell.split()))]
        most.append(max(long, cell_len(heading)))
        least.append(max([long if keep else 0, *map(cell_len, words)]))
    room = width - GAP * (len(headings) - 1) - sum(least)
    if room < 0:
        return None
    wanted = sum(most) - sum(least)
    share = min(1.0, room / wanted) if wanted else 0.0
    return [low + int(share * (high - low)) for low, high in zip(least, most, strict=True)]


def _indented(text: str, width: int) -> str:
    return textwrap.fill(
        text, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


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


def check_places(inputs: Iterable[Path | None], **places: Path | None) -> None:
    """See, before the work, that files can be written, and that none takes another's place.

    Args:
        inputs: files that are read.
        places: what is to be written, by option; None for what is not.

    Raises:
        ValueError: in one line.
    """
    read = [os.path.realpath(path) for path in inputs if path is not None]
    taken = dict.fromkeys(read, "the file that is read")
    for what, path in places.items():
        if path is None:
            continue
        there = os.path.realpath(path)
        if there in taken and (there in read or os.path.isfile(there) or not os.path.exists(there)):
            raise ValueError(f"{what} {str(path)!r} is {taken[there]}, too; give each a name of its own")
        taken[there] = f"the {what}"
        check_place(what, path)


def deliver(show: Callable[[], None], saves: Mapping[Path, Callable[[], None]]) -> int:
    """Show an answer, then save its files; what fails is told, and keeps nothing else from being done.

    Args:
        show: prints the answer.
        saves: by file.

    Returns:
        The exit status: 0, 2 if something could not be saved or shown, 141 if nobody reads standard output.
    """
    status = 0
    try:
        show()
        sys.stdout.flush()
    except OSError as error:
        status = unheard(error) or complain(f"standard output could not be written ({error.strerror})")
    for path, save in saves.items():
        try:
            save()
        except OSError as error:
            status = complain(f"{str(path)!r} could not be written ({error.strerror or error})")
    return status


@contextmanager
def telling_interruption() -> Iterator[None]:
    """Say so on standard error when Ctrl-C ends a command before it has anything to print."""
    try:
        yield
    except KeyboardInterrupt:
        remark("interrupted before there was a result")
        raise


def remark(message: str) -> None:
    """Write one line on standard error, unless answers alone are wanted."""
    if not quiet():
        complain(message)


def complain(message: str) -> int:
    """Write one line on standard error, in any case; returns the exit status of bad input."""
    print(f"cbs: {' '.join(message.split())}", file=sys.stderr)
    return 2


class ExtraWeights(UserWarning):
    """A file of weights holds more than the model has."""


@contextmanager
def telling_of_plugins() -> Iterator[None]:
    """Say in one line on standard error which plug-in, or what of a file of weights, is left out, and why."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", PluginWarning)
        warnings.simplefilter("always", ExtraWeights)
        show = warnings.showwarning

        def tell(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, PluginWarning | ExtraWeights):
                remark(str(message))
            else:
                show(message, category, *where, **more)

        warnings.showwarning = tell
        yield
