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
from rich.console import Console
from rich.table import Table

from cbs.cli.streams import unheard
from cbs.cli.tone import quiet
from solvers.runtime.plugins import PluginWarning
from solvers.runtime.writing import check_place
from solvers.summary import number as number
from solvers.summary import percent as percent


def results() -> Console:
    """The console of results, on standard output; brackets and colons in names mean nothing to it."""
    return Console(markup=False, emoji=False, highlight=False)


def progress() -> Console:
    """The console of progress, on standard error; a mute one where nobody wants to be told of it."""
    return Console(
        stderr=True, quiet=quiet(), markup=False, emoji=False, highlight=False,
        soft_wrap=not sys.stderr.isatty(),
    )  # fmt: skip


def is_live(console: Console) -> bool:
    """Whether a console can show what moves."""
    return console.is_terminal and not console.is_dumb_terminal and not console.quiet


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
        justify: Literal["left", "right"] = "right" if right and i else "left"
        table.add_column(heading, no_wrap=right or i == 0, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*row)
    if console.measure(table, options=console.options.update(max_width=1000)).minimum <= console.width:
        console.print(table)
        return
    for name, *cells in rows:
        print(name)
        for heading, cell in zip(headings[1:], cells, strict=True):
            print(_indented(f"{heading}: {cell}" if heading else cell, console.width))


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


@contextmanager
def telling_of_plugins() -> Iterator[None]:
    """Say in one line on standard error which plug-in is left out, and why."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", PluginWarning)
        show = warnings.showwarning

        def tell(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, PluginWarning):
                remark(str(message))
            else:
                show(message, category, *where, **more)

        warnings.showwarning = tell
        yield
