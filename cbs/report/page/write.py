"""The page: one HTML file with data, figures, Plotly's library and all else in it; nothing is loaded."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbs.report.page.cells import prepared
from cbs.report.page.details import Arrays, gather
from cbs.report.page.embed import cells_table, details_table, packed, plain, table
from cbs.report.page.figure import Evidence, Figure
from cbs.report.page.figures import figures
from cbs.report.page.optima import consistency
from cbs.report.page.style import THEMES, looks
from cbs.report.page.summary import Summary, summary
from solvers.runtime.writing import replacing

if TYPE_CHECKING:
    import pandas as pd

PACKAGE = "combinatorial-brain-surgeon"


@dataclass(frozen=True)
class Report:
    """A report before it is written.

    Attributes:
        title: of the page.
        evidence: what it is of.
        figures: in their order.
        summary: of its top.
    """

    title: str
    evidence: Evidence
    figures: Sequence[Figure]
    summary: Summary

    def html(self) -> str:
        """The page."""
        return page(self)


def compose(
    frame: pd.DataFrame,
    arrays: Arrays | None = None,
    *,
    title: str | None = None,
    shift: float = 1.0,
    facts: Mapping[str, Any] | None = None,
) -> Report:
    """Figures and summary of a table of cells.

    Args:
        frame: a row a cell, with the columns of `cbs.study`.
        arrays: gives the arrays of a cell by its key, or None.
        title: of the page; by default the study's name.
        shift: of shifted geometric means, seconds.
        facts: names and values that the summary begins with.

    Raises:
        ValueError: if the frame has no cells or lacks a column, or the shift is no positive number.
    """
    if not 0 < shift < float("inf"):
        raise ValueError(f"shift must be a positive number of seconds, not {shift!r}")
    cells = prepared(frame)
    if cells.empty:
        raise ValueError("there are no cells to report on: the table is empty")
    details = gather(cells, arrays)
    names = sorted({name for name in cells["study"] if name})
    evidence = Evidence(cells, details, looks(cells["label"]), consistency(cells), shift)
    return Report(
        title or (names[0] if len(names) == 1 else "Report"), evidence, figures(evidence),
        summary(evidence, facts),
    )  # fmt: skip


def write(frame: pd.DataFrame, arrays: Arrays | None, path: str | os.PathLike[str], **options: Any) -> Report:
    """Write the page of a table of cells; `options` are those of `compose`.

    Raises:
        ValueError: see `compose`.
        OSError: if the file can't be written; what was there stays.
    """
    report = compose(frame, arrays, **options)
    with replacing(path) as file:
        file.write(report.html().encode())
    return report


def page(report: Report) -> str:
    """The HTML of a report."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent / "assets"
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    sections: dict[str, list[Figure]] = {}
    for figure in report.figures:
        sections.setdefault(figure.section, []).append(figure)
    cells = report.evidence.cells
    data = {
        "title": report.title,
        "cells": cells_table(cells),
        "figures": [
            {
                "name": figure.name,
                "title": figure.title,
                "spec": plain(figure.spec),
                "height": figure.height,
                "table": table(figure.table, cells),
                "summary": None if figure.summary is None else table(figure.summary, cells),
            }
            for figure in report.figures
        ],
        "themes": THEMES,
        "looks": {
            label: [look.colour, look.marker, look.dash] for label, look in report.evidence.looks.items()
        },
    }
    scripts = [(folder / name).read_text() for name in ("rules.js", "tables.js", "page.js")]
    return environment.get_template("page.html").render(
        title=report.title,
        summary=report.summary,
        sections=sections,
        style=(folder / "page.css").read_text(),
        themes=THEMES,
        scripts=scripts,
        data=packed(data),
        details=packed(details_table(report.evidence.details)),
        plotly=plotly(),
        plotly_version=version("plotly"),
        made=time.strftime("%Y-%m-%d %H:%M"),
        version=version(PACKAGE),
        has_problems=bool((cells["kind"] == "solve").any()),
        cells=len(cells),
    )


@cache
def plotly() -> str:
    """Plotly's library (MIT licence) as the Python package has it, compressed: 4.8 MB become 1.9."""
    found = importlib.util.find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("a report needs plotly: pip install plotly")
    script = Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
    return base64.b64encode(gzip.compress(script.read_bytes(), 6, mtime=0)).decode()
