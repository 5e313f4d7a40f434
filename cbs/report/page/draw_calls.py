"""Figures and tables of functions' measurements: what they measured against what they were asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from cbs.report.page.calls import QUALITY, TIME, axes, functions, lists, parameters
from cbs.report.page.draw_prunings import slug
from cbs.report.page.figure import Evidence, Figure
from cbs.report.page.style import layout, looks, text
from cbs.report.page.words import listed, seconds, several

SECTION = "Measurements"


def measurements(evidence: Evidence) -> Iterator[Figure]:
    """Of every function its table, and figures of the quality and the seconds that it measured."""
    asked = {
        row["cell"]: parameters(row) for row in evidence.cells.to_dict("records") if row["kind"] == "call"
    }
    for number, (name, table) in enumerate(functions(evidence.cells).items()):
        place = f"{slug(name)}-{number}"
        names = list(dict.fromkeys(key for cell in table["cell"] for key in asked[cell]))
        along, group = axes(table, names)
        quality = next((y for y in QUALITY if y in table and _varies(table[y])), None)
        drawn = [y for y in (quality, TIME) if y is not None and y in table and along is not None]
        for y in drawn:
            yield from _figure(name, place, table, y, str(along), group)
        shown = table.drop(columns="cell")
        yield Figure(
            f"calls-{place}",
            SECTION,
            f"Measurements of {name}",
            f"What {name} measured, a row a call.",
            f"{several(len(table), 'call')} over {listed(names) or 'no parameters'}.",
            None,
            table,
            shown,
        )
    for number, ((name, key), table) in enumerate(lists(evidence.cells).items()):
        yield Figure(
            f"list-{slug(name)}-{slug(key)}-{number}", SECTION, f"{key.replace('_', ' ')} of {name}",
            f"The entries of {key!r} that the calls of {name} gave, a row each.",
            f"{several(len(table), 'entry', 'entries')} of {several(table['cell'].nunique(), 'call')}.",
            None, table, table.drop(columns="cell"),
        )  # fmt: skip


def _varies(column: pd.Series) -> bool:
    """Whether a measurement differs by more than what nobody can see."""
    values = pd.to_numeric(column, errors="coerce").dropna()
    return (
        len(values) > 1
        and bool(values.max() - values.min() > 1e-3 * max(abs(values).max(), 1e-9))
        and bool(column.name != "gap" or values.max() > 1e-3)
    )


def _figure(
    name: str, place: str, table: pd.DataFrame, y: str, along: str, group: str | None
) -> Iterator[Figure]:
    values = pd.to_numeric(table[y], errors="coerce")
    rows = table.assign(**{y: values})[np.isfinite(values)]
    if rows.empty or rows[along].nunique() < 2:
        return
    numeric = pd.api.types.is_numeric_dtype(rows[along])
    positive = bool((rows[y] > 0).all()) and y not in ("accuracy", "gap")
    parts = {"": rows} if group is None else {str(value): part for value, part in rows.groupby(group)}
    styles = looks(parts)
    data: list[dict[str, Any]] = []
    for value, part in parts.items():
        middle = part.groupby(along, sort=numeric)[y].median()
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if numeric else "markers",
                "name": text(value),
                "x": middle.index.tolist() if numeric else [text(x) for x in middle.index],
                "y": middle.tolist(),
                "line": styles[value].line(),
                "marker": styles[value].points(8),
                "showlegend": group is not None,
                "hovertemplate": f"{text(along)} %{{x}}: %{{y:.4g}} %{{fullData.name}}<extra></extra>",
            }
        )
    low, high = rows.loc[rows[y].idxmin()], rows.loc[rows[y].idxmax()]
    spread = numeric and rows[along].min() > 0 and rows[along].max() > 20 * rows[along].min()
    x_axis: dict[str, Any] = {"title": {"text": text(along)}}
    x_axis["type"] = "category" if not numeric else "log" if spread else "linear"
    lines = f", a line a {group}" if group is not None else ""
    yield Figure(
        f"{slug(y)}-{place}", SECTION, f"{y} of {name}",
        f"The {y} that {name} measured against {along}{lines}; the median where other parameters differ.",
        f"It is the least, {_said(low[y], y)}, at {_where(low, along, group)}, and the most, "
        f"{_said(high[y], y)}, "
        f"at {_where(high, along, group)}.",
        {"data": data, "layout": layout(x_axis, {
            "title": {"text": y}, "type": "log" if positive else "linear",
            **({"tickformat": ".0%"} if y in ("accuracy", "gap") else {})})},
        rows,
    )  # fmt: skip


def _where(row: pd.Series, along: str, group: str | None) -> str:
    return " and ".join(f"{name} {_asked(row[name])}" for name in (along, group) if name is not None)


def _asked(value: Any) -> str:
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _said(value: float, y: str) -> str:
    if y == TIME:
        return seconds(float(value))
    return f"{100 * value:.2f}%" if y in ("accuracy", "gap") else f"{value:.4g}"
