"""What a report is made of: figures that are values, and what they are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cbs.report.page.details import Details
from cbs.report.page.optima import Consistency
from cbs.report.page.style import Look

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Figure:
    """One figure of a report.

    Attributes:
        name: of its file and its place in the page: letters, digits and hyphens.
        section: of the page that it belongs to.
        title: in a few words.
        caption: what it shows, in one sentence.
        finding: what is seen in it, computed from the data, in one sentence.
        spec: `data` and `layout` as Plotly has them; None where there is a table alone. A trace that belongs
            to a solver says so in `meta.label`; what is to be drawn anew when the page's filters change says
            by which rule in `meta.rule` (see `assets/rules.js`): `points`, `median`, `mean`, `profile`,
            `shifted`, `distribution`.
        table: the data behind it, to download. With a column `cell`, the row of the table of cells, the
            page's filters act on it.
        summary: a small table shown below the figure, or None.
        height: in pixels.
    """

    name: str
    section: str
    title: str
    caption: str
    finding: str
    spec: dict[str, Any] | None
    table: pd.DataFrame
    summary: pd.DataFrame | None = None
    height: int = 440


@dataclass(frozen=True)
class Evidence:
    """What figures are drawn from.

    Attributes:
        cells: as `prepared` gives them.
        details: traces and masks.
        looks: colour, marker and dash of every label.
        shift: of the shifted geometric means, in seconds.
        consistency: of all bounds with all values.
    """

    cells: pd.DataFrame
    details: Details
    looks: Mapping[str, Look]
    consistency: Consistency
    shift: float = 1.0


Drawing = Callable[[Evidence], Iterable[Figure]]
"""A function that gives figures of the evidence, none where there is nothing to show."""
