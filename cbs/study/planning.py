"""What a study asks for by key, and what of it is missing; nothing is run or written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cbs.study.cell import Cell
from cbs.study.grid import grid
from cbs.study.machine import machine, version
from cbs.study.schema import DONE, FAILED, PLANNED
from cbs.study.store import Store
from cbs.study.studyfile import Study


def keyed(cells: Iterable[Cell], version: str, machine: str) -> dict[str, Cell]:
    """Cells by key; those of the same problem and settings are one.

    Args:
        cells: of a study.
        version: see `Cell.identity`.
        machine: see `Cell.identity`.

    Raises:
        ValueError: for calls that differ, and whose results could not be told apart.
    """
    found: dict[str, Cell] = {}
    for cell in cells:
        other = found.setdefault(cell.key(version, machine), cell)
        if other is cell or cell.kind != "call" or cell.payload is None or other.payload is None:
            continue
        if cell.payload()["parameters"] != other.payload()["parameters"]:
            raise ValueError(
                f"[[calls]] {cell.solver!r}: {other.instance!r} and {cell.instance!r} can't be told apart; "
                "write numbers that are not finite as texts"
            )
    return found


def planned(
    study: Study,
    *,
    store: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    only: str | None = None,
    told: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """What a study asks for, and what of it is missing; nothing is written.

    Args:
        study: what is asked.
        store: see `run`.
        data_dir: see `run`.
        only: see `run`.
        told: see `run`.

    Returns:
        `solvers`: cells and missing ones by solver; `left_out`: see `cbs.study.grid.Grid`.
    """
    folder = data_dir or os.environ.get("CBS_DATA")
    found = grid(study, Path(folder) if folder else None, told).only(only)
    code, where = study.top["version"] or version(), study.top["machine"] or machine()
    states: dict[str, Any] = {}
    try:
        with Store.open(store or study.store) as there:
            states = there.states()
    except ValueError:
        if "://" in str(store or study.store) or Path(store or study.store).exists():
            raise
    solvers: dict[str, tuple[int, int]] = {}
    for key, cell in keyed(found.cells, code, where).items():
        state = states.get(key, (PLANNED,))[0]
        cells, missing = solvers.get(cell.solver, (0, 0))
        solvers[cell.solver] = (cells + 1, missing + (state not in (DONE, FAILED)))
    return {"solvers": solvers, "left_out": found.left_out}
