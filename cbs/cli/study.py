"""`cbs study`: run what a study's file asks for, show where it stands, export it, run failed cells again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cbs.cli import output
from cbs.cli.everywhere import Group
from cbs.cli.options import HOW, INPUT, LIMITS, OUTPUT, DataDir, Json, flag, option

if TYPE_CHECKING:
    from collections.abc import Callable

    from cbs.study.driver import Standing
    from cbs.study.store import Store
    from cbs.study.studyfile import Study

Stated = Annotated[
    Path, typer.Argument(metavar="STUDY.toml", help="File of the study; docs/study.md says its keys.")
]
Place = Annotated[
    str, typer.Argument(metavar="STUDY.toml|STORE", help="A study's file, or a store by path or URL.")
]
StoreOption = Annotated[
    str | None,
    option(
        "--store",
        panel=OUTPUT,
        metavar="PLACE",
        help="Another store than the file says: path, or URL of a database.",
    ),
]
ExecutorOption = Annotated[
    str | None,
    option(
        "--executor", panel=HOW, metavar="WHERE",
        help="`processes:N`, `dask:tcp://host:8786`, `ray`, `slurm:queue`.  [default: processes]",
    ),
]  # fmt: skip
WorkersOption = Annotated[
    int | None, option("--workers", panel=HOW, metavar="NUMBER", help="Cells at once.", min=1)
]
ReportOption = Annotated[
    Path | None,
    option("--report", panel=OUTPUT, metavar="FILE.html", help="Write the page of `cbs report` at the end."),
]
OnlyOption = Annotated[
    str | None,
    option(
        "--only", panel=LIMITS, metavar="TEXT",
        help="Only cells whose instance or solver has it, or matches it as a pattern.",
    ),
]  # fmt: skip
EVERY = 10.0
"""Seconds between two lines where standard error is not a terminal."""


def run(
    study: Stated,
    store: StoreOption = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    data_dir: DataDir = None,
    only: OnlyOption = None,
    known: Annotated[
        Path | None,
        option(
            "--known",
            panel=INPUT,
            metavar="FILE",
            help="An exported table, whose results are taken and not computed again.",
        ),
    ] = None,
    plan: Annotated[bool, flag("--plan", panel=LIMITS, help="Only say what there is to do.")] = False,
    report: ReportOption = None,
) -> int:
    """Run what is missing of a study: every cell of its grid once, kept in its store as it ends.

    Ctrl-C stops it; the same command goes on. Several may run at once on one store. Status 1: cells failed.

    For example:

    `cbs study run studies/quick.toml`
    """
    from cbs.study.planning import planned
    from cbs.study.studyfile import Study

    asked = Study.load(study)
    if plan:
        _print_plan(planned(asked, store=store, data_dir=data_dir, only=only, told=_told))
        return 0
    failed = _run(asked, store, executor, workers, data_dir, only, known, retry=False)
    if report is not None:
        from cbs.cli.report import report as write

        write(store or asked.store, report, title=asked.top["title"], study=asked.name)
    return int(failed)


def retry(
    study: Stated,
    store: StoreOption = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    data_dir: DataDir = None,
    only: OnlyOption = None,
) -> int:
    """Run the failed cells of a study again, and what is missing of it.

    For example:

    `cbs study retry studies/quick.toml`
    """
    from cbs.study.studyfile import Study

    return int(_run(Study.load(study), store, executor, workers, data_dir, only, None, retry=True))


def show(
    place: Place,
    store: StoreOption = None,
    tables: Annotated[
        bool, flag("--tables", panel=OUTPUT, help="The tables that the file declares, as Markdown.")
    ] = False,
    put: Annotated[
        bool, flag("--write", panel=OUTPUT, help="Put these tables into the documents that they name.")
    ] = False,
    cells: Annotated[
        Path | None,
        option(
            "--cells",
            panel=HOW,
            metavar="FILE",
            help="Of an exported .parquet or .csv file in place of the store.",
        ),
    ] = None,
    failed: Annotated[
        bool, flag("--failed", panel=OUTPUT, help="List the failed cells and their errors.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show where a study stands: its cells by state and solver, what failed, and its tables.

    For example:

    `cbs study show studies/quick.toml --tables`
    """
    from cbs.study.frames import read
    from cbs.study.schema import FAILED
    from cbs.study.studyfile import Study
    from cbs.study.tables import table, write

    if cells is not None:
        asked = Study.load(place) if place.endswith(".toml") else None
        name, frame = str(cells), read(cells)
    else:
        asked, there, keys = _found(place, store)
        with there:
            name, frame = there.name, there.frame(keys)
    if as_json:
        output.print_json({"store": name, "cells": _counts(frame)})
    elif failed:
        for _, row in frame[frame["state"] == FAILED].iterrows():
            output.results().print(f"{row['instance']}, {row['solver']}: {row['error']}", soft_wrap=True)
    elif tables or put:
        if asked is None or not asked.tables:
            raise ValueError(f"{place!r} declares no tables; give a study's file with [[tables]]")
        for declared in asked.tables:
            if put and declared["into"]:
                for path in write(frame, declared, asked.folder):
                    output.progress().print(f"{declared['name']} in {path}")
            if tables or not declared["into"]:
                title = declared["title"] or declared["name"]
                print(f"{title}\n\n{table(frame, declared, asked.folder)}")
    else:
        _print_standing(name, frame)


def export(
    place: Place,
    to: Annotated[Path, option("-o", "--to", panel=OUTPUT, metavar="FILE", help="A .parquet or .csv file.")],
    store: StoreOption = None,
    form: Annotated[
        str, option("--format", panel=OUTPUT, metavar="NAME", help="`cells`, or `benchopt` for its columns.")
    ] = "cells",
    arrays: Annotated[
        Path | None,
        option("--arrays", panel=OUTPUT, metavar="FOLDER", help="Traces and masks too, an .npz a cell."),
    ] = None,
) -> None:
    """Export the cells of a study, a row each, for pandas, R, DuckDB or benchopt.

    For example:

    `cbs study export studies/quick.toml -o quick.parquet`
    """
    from cbs.study.export import export as write
    from cbs.study.export import export_arrays

    _, there, keys = _found(place, store)
    with there:
        rows = write(there, to, form=form, keys=keys)
        output.results().print(f"{rows} rows in {to}")
        if arrays is not None:
            output.results().print(f"arrays of {export_arrays(there, arrays, keys)} cells in {arrays}")


def _run(
    asked: Study,
    store: str | None,
    executor: str | None,
    workers: int | None,
    data_dir: Path | None,
    only: str | None,
    known: Path | None,
    *,
    retry: bool,
) -> bool:
    """Run a study; whether cells failed."""
    from cbs.study.database import named
    from cbs.study.driver import run as drive

    last: Standing | None = None

    def heard(standing: Standing) -> None:
        nonlocal last
        last = standing
        shown(standing)

    try:
        with _shown() as shown:
            standing = drive(
                asked, store=store, on=executor, workers=workers, data_dir=data_dir, retry=retry, only=only,
                known=known, shown=heard, told=_told,
            )  # fmt: skip
    except KeyboardInterrupt:
        if last is not None:
            kept = f"{last.done} of {last.total} cells are in {named(store or asked.store)}"
            output.remark(f"interrupted: {kept}; the same command goes on")
        raise
    for why, count in standing.left_out.items():
        output.progress().print(f"left out{f', {count} cells' if count else ''}: {why}")
    where = named(store or asked.store)
    failed = f", {standing.failed} failed: cbs study show {asked.path} --failed" if standing.failed else ""
    output.results().print(
        f"{standing.done} of {standing.total} cells done, {standing.fresh} of them now{failed}\n{where}",
        soft_wrap=True,
    )
    return standing.failed > 0


def _told(what: str) -> None:
    output.progress().print(what)


@contextmanager
def _shown() -> Iterator[Callable[[Standing], None]]:
    """Something that shows where a run stands: a bar on a terminal, lines elsewhere."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = output.progress()
    bar = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(),
        TextColumn("{task.fields[count]}", markup=False),
        TimeElapsedColumn(), console=console, transient=True, disable=not output.is_live(console),
    )  # fmt: skip
    task = bar.add_task("", total=None, count="")
    spoken: tuple[float, str] = (-EVERY, "")

    def shown(standing: Standing) -> None:
        nonlocal spoken
        text = _line(standing)
        count = f"{standing.done} of {standing.total}"
        bar.update(task, description=text, completed=standing.done, total=standing.total, count=count)
        if bar.disable and (time.monotonic() >= spoken[0] + EVERY or standing.done == standing.total):
            line = count + (f": {text}" if text else "")
            if line != spoken[1]:
                console.print(line)
            spoken = (time.monotonic(), line)

    with bar:
        yield shown


def _line(standing: Standing) -> str:
    left = (
        ""
        if standing.left is None or standing.done == standing.total
        else f"about {_span(standing.left)} left, "
    )
    failed = f"{standing.failed} failed, " if standing.failed else ""
    lost = f"{standing.lost} workers lost, " if standing.lost else ""
    elsewhere = f"{standing.elsewhere} run elsewhere, " if standing.elsewhere else ""
    return f"{left}{failed}{lost}{elsewhere}{standing.last}".removesuffix(", ")


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _found(place: str, store: str | None) -> tuple[Study | None, Store, list[str] | None]:
    """A study's file, its store and the keys of its cells; of a store alone, all."""
    from cbs.study.store import Store
    from cbs.study.studyfile import Study

    if not place.endswith(".toml"):
        return None, Store.open(store or place), None
    asked = Study.load(place)
    there = Store.open(store or asked.store)
    return asked, there, there.members(asked.name)


def _counts(frame: Any) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for solver, state in zip(frame["solver"], frame["state"], strict=True):
        states = found.setdefault(str(solver), {})
        states[str(state)] = states.get(str(state), 0) + 1
    return found


def _print_standing(name: str, frame: Any) -> None:
    from cbs.study.schema import FAILED, STATES

    counts = _counts(frame)
    rows = [
        (solver, *(str(states.get(state, 0)) for state in STATES))
        for solver, states in sorted(counts.items())
    ]
    totals = [str(sum(states.get(state, 0) for states in counts.values())) for state in STATES]
    output.print_table(("solver", *STATES), [*rows, ("all", *totals)], right=True)
    console = output.results()
    errors: dict[str, int] = {}
    for error in frame[frame["state"] == FAILED]["error"]:
        errors[str(error)] = errors.get(str(error), 0) + 1
    for error, count in sorted(errors.items(), key=lambda pair: -pair[1])[:5]:
        console.print(f"{count} failed: {error}", soft_wrap=True)
    seconds = frame["seconds"].sum()
    console.print(f"{name}: {len(frame)} cells, {_span(float(seconds))} of work", soft_wrap=True)


def _print_plan(counts: dict[str, Any]) -> None:
    rows = [(str(solver), str(there), str(missing)) for solver, (there, missing) in counts["solvers"].items()]
    output.print_table(("solver", "cells", "missing"), rows, right=True)
    for why, count in counts["left_out"].items():
        output.results().print(f"left out{f', {count} cells' if count else ''}: {why}")


GROUP = Group(
    "Studies", "Grids of problems and solvers, or networks and methods, run once and kept in one table.",
    {"run": run, "show": show, "export": export, "retry": retry},
)  # fmt: skip
