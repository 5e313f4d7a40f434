"""Which instances of a library a command is about, and what of them is there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cbs.cli import output
from cbs.cli.options import flag, option

if TYPE_CHECKING:
    from solvers.instances.item import Item
    from solvers.instances.library import Library

WHICH = "Which instances"

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Of the library.")]
Names = Annotated[
    list[str] | None,
    option("--name", panel=WHICH, metavar="PATTERN", help="By name, as `digits-*`; may be repeated."),
]
Family = Annotated[
    str | None, option(panel=WHICH, metavar="PATTERN", help="Network and layer, as `digits/*`, or `digits`.")
]
Variant = Annotated[str | None, option(panel=WHICH, metavar="NAME", help="joint or selection.")]
Budget = Annotated[
    str | None,
    option(panel=WHICH, metavar="KIND", help="per_row, per_layer, n_of_m, columns or network."),
]
Least = Annotated[int | None, option(panel=WHICH, metavar="N", help="Least number of inputs.")]
Most = Annotated[int | None, option(panel=WHICH, metavar="N", help="Largest number of inputs.")]
Open = Annotated[bool, flag("--open", panel=WHICH, help="Those whose gap is not closed: the challenge.")]
Proven = Annotated[bool, flag("--proven", panel=WHICH, help="Those whose gap is closed.")]


def opened(folder: Path) -> Library:
    """The library of a folder."""
    from solvers.instances.library import Library

    return Library(folder)


def chosen(
    library: Library, names: list[str] | None, family: str | None, variant: str | None, budget: str | None,
    least: int | None, most: int | None, only_open: bool, proven: bool,
) -> Iterable[Item]:  # fmt: skip
    """The instances that a command's options name."""
    if only_open and proven:
        raise ValueError("--open and --proven leave nothing; give one of them")
    status = "open" if only_open else "proven" if proven else None
    return library.items(
        names=names or None, family=family, variant=variant, budget=budget, n=(least, most), status=status
    )


def there(library: Library, items: list[Item]) -> list[Item]:
    """Those whose data is in the library; of the others standard error tells."""
    missing = {item.name: library.missing(item.name) for item in items}
    if names := sorted({part for parts in missing.values() for part in parts}):
        count = sum(map(bool, missing.values()))
        output.remark(
            f"{count} instance{' is' if count == 1 else 's are'} left out, as data {', '.join(names)} is not "
            f"there; `cbs instances make RECIPE -o {library.folder}` makes it"
        )
    return [item for item in items if not missing[item.name]]


def number(value: float | None) -> str:
    """A value or bound as text, a dash where there is none."""
    return "-" if value is None else output.number(value)
