"""`cbs report`: a study or a run as one HTML page with interactive figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cbs.cli import output
from cbs.cli.options import INPUT, OUTPUT, option

Place = Annotated[
    str,
    typer.Argument(
        metavar="STORE",
        help="A study's store, by path or URL; a table of `cbs study export` (.parquet, .csv); or the folder "
        "of a `cbs prune` run.",
    ),
]


def report(
    store: Place,
    page: Annotated[
        Path | None,
        option(
            "--output",
            "-o",
            panel=OUTPUT,
            metavar="PAGE.html",
            help="The page.  [default: beside STORE; report.html for a URL]",
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        option(
            "--figures",
            panel=OUTPUT,
            metavar="FOLDER",
            help="Write every figure as PNG (by a headless browser) and its data as CSV, too.",
        ),
    ] = None,
    title: Annotated[
        str | None, option("--title", panel=OUTPUT, help="Of the page.  [default: the study's name]")
    ] = None,
    shift: Annotated[
        float, option("--shift", panel=OUTPUT, metavar="SECONDS", help="Of shifted geometric means.")
    ] = 1.0,
    study: Annotated[
        str | None,
        option(
            "--study", panel=INPUT, metavar="NAME", help="Of a store of several studies, this one's cells."
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        option(
            "--where",
            panel=INPUT,
            metavar="COLUMN=VALUES",
            help="Only cells that have one of these values, as `variant=joint` or `solver=scip*,gurobi*`.",
        ),
    ] = None,
    arrays: Annotated[
        Path | None,
        option(
            "--arrays",
            panel=INPUT,
            metavar="FOLDER",
            help="Of an exported table, its traces and masks.  [default: TABLE-arrays, if it is there]",
        ),
    ] = None,
) -> int:
    """Make a page of a study: figures, tables, and every instance, in one HTML file that needs no network.

    It has performance profiles, means of seconds, gaps over time, sizes and sparsities, heuristics' excess,
    accuracies and masks, as far as the cells have something for them; its filters act on figures and tables.

    For example:

    `cbs report exact.db`

    `cbs report exact.parquet -o exact.html --figures figures`

    `cbs report runs/TIME`
    """
    from cbs.report.page import compose, read, write_figures
    from cbs.study.frames import chosen
    from solvers.runtime.writing import check_place, replacing

    if figures is not None and figures.exists() and not figures.is_dir():
        raise ValueError(f"figures {str(figures)!r} is no folder; give one, or a name that is free")
    wanted = dict(map(_condition, where or ()))
    with read(store, arrays=arrays, study=study) as source:
        place = source.page if page is None else page
        check_place("output", place)
        if place.exists() and Path(store).exists() and place.samefile(store):
            raise ValueError(f"output {str(place)!r} is the store itself; give another name")
        made = compose(
            chosen(source.frame, wanted),
            source.arrays,
            title=title or source.title,
            shift=shift,
            facts=source.facts,
        )
    text = made.html().encode()
    with replacing(place) as file:
        file.write(text)
    if figures is not None and (why := write_figures(made.figures, figures)):
        output.remark(why)
    for warning in made.summary.warnings:
        output.remark(warning)
    counts = f"{len(made.figures)} figures of {len(made.evidence.cells):,} cells, {len(text) / 1e6:.1f} MB"
    print(f"{place}: {counts}")
    if figures is not None:
        print(f"{figures}: the figures as files")
    return 0


def _condition(text: str) -> tuple[str, list[Any]]:
    """A column and the values that are wanted of it."""
    name, sign, values = text.partition("=")
    if not name or not sign or not values:
        raise ValueError(f"where must be COLUMN=VALUES, as variant=joint, got {text!r}")
    found: list[Any] = []
    for value in values.split(","):
        try:
            found.append(float(value))
        except ValueError:
            found.append(value)
    return name, found
