"""Figures of pruned networks: accuracy, loss and layer objectives against sparsity, layers, stages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from cbs.report.page.figure import Evidence, Figure
from cbs.report.page.prunings import best, layers, networks, stages
from cbs.report.page.style import layout, text
from cbs.report.page.words import listed, percent, seconds

SECTION = "Pruned networks"
FACTS = ["cell", "instance", "label", "family", "sparsity", "seed"]
SHOWN = ["sparsity", "label", "accuracy", "loss", "value", "bound", "gap", "seconds"]
PATTERNS = ("", "/", "x", ".", "-")
"""Of bars of one colour."""
SPARSITY = {"title": {"text": "share pruned"}, "tickformat": ".0%"}


def slug(name: str) -> str:
    """A name as part of a file's name and a place in a page."""
    words = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower())
    return "-".join(part for part in words.split("-") if part)[:40] or "network"


def against_sparsity(evidence: Evidence) -> Iterator[Figure]:
    """Accuracy, loss, objective and seconds of every method, a figure each and network."""
    for number, (name, cells) in enumerate(networks(evidence.cells).items()):
        place = f"{slug(name)}-{number}" if number else slug(name)
        dense = float(cells["dense"].median())
        yield from _accuracy(evidence, name, place, cells, dense)
        for column, title, what in (
            ("loss", "Loss against sparsity", "loss of the pruned network"),
            ("value", "Layer objectives against sparsity", "value of the layer objectives"),
            ("gap", "Gap of pruned networks", "certified gap of the layer objectives"),
            ("seconds", "Seconds of methods", "seconds that the pruning took"),
        ):  # fmt: skip
            yield from _column(evidence, name, place, cells, column, title, what)


def _accuracy(
    evidence: Evidence, name: str, place: str, cells: pd.DataFrame, dense: float
) -> Iterator[Figure]:
    mine = cells[np.isfinite(cells["accuracy"])]
    if mine.empty:
        return
    data = _lines(evidence, mine, "accuracy", ".2%")
    shapes, notes = [], []
    if np.isfinite(dense):
        shapes = [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": dense, "y1": dense,
                   "line": {"dash": "dot", "width": 1.5, "color": "#7f8896"}}]  # fmt: skip
        notes = [{"xref": "paper", "x": 0, "xanchor": "left", "y": dense, "yanchor": "bottom",
                  "text": f"dense {percent(dense, 2)}", "showarrow": False}]  # fmt: skip
    told = []
    for sparsity, there in mine.groupby("sparsity"):
        means = there.groupby("label")[["accuracy", "loss"]].mean()
        means = means.sort_values(["accuracy", "loss"], ascending=[False, True], kind="stable")
        told.append(f"{means.index[0]} keeps {percent(means['accuracy'].iloc[0], 2)} at {percent(sparsity)}")
    seeds = mine["seed"].nunique()
    yield Figure(
        f"accuracy-{place}",
        SECTION,
        f"Accuracy against sparsity: {name}",
        f"Accuracy of {name} by the share of its weights pruned, a line a "
        f"method{f', the mean over {seeds} seeds' if seeds > 1 else ''}.",
        f"{listed(told, 5)}{f'; the dense network has {percent(dense, 2)}' if np.isfinite(dense) else ''}.",
        {
            "data": data,
            "layout": layout(
                SPARSITY,
                {"title": {"text": "accuracy"}, "tickformat": ".0%"},
                shapes=shapes,
                annotations=notes,
            ),
        },
        cells[[*FACTS, "accuracy", "loss", "value", "bound", "gap", "seconds"]],
        cells.sort_values(["sparsity", "rank"])[SHOWN].rename(columns={"label": "method"}),
        height=500,
    )


def _column(
    evidence: Evidence, name: str, place: str, cells: pd.DataFrame, column: str, title: str, what: str
) -> Iterator[Figure]:
    mine = cells[np.isfinite(cells[column])]
    if mine.empty or (column == "gap" and mine["gap"].nunique() < 2):
        return
    positive = bool((mine[column] > 0).all())
    axis: dict[str, Any] = {
        "title": {"text": column},
        "type": "log" if positive and column != "gap" else "linear",
    }
    if column == "gap":
        axis |= {"tickformat": ".0%"}
    data = _lines(evidence, mine, column, ".2%" if column == "gap" else ".4g")
    floor = ""
    if column == "value" and positive:
        proven = cells[cells["bound"] > 0]
        for pools, part in proven.groupby("pools"):
            bounds = part.groupby("sparsity")["bound"].max()
            floor = (
                " A dotted line is the best bound that any method proved: no masks of that budget cost less."
            )
            data.append({
                "type": "scatter", "mode": "lines", "name": f"best bound ({text(pools)})",
                "x": bounds.index.tolist(), "y": bounds.tolist(),
                "line": {"dash": "dash" if pools == "neurons" else "dot", "width": 2, "color": "#7f8896"},
                "hovertemplate": "%{fullData.name}: %{y:.4g}<extra></extra>",
            })  # fmt: skip
    middle = mine.groupby("label")[column].median()
    low, high = middle.idxmin(), middle.idxmax()
    form = (
        (lambda v: percent(v, 2)) if column == "gap" else seconds if column == "seconds" else "{:.3g}".format
    )
    told = f"{form(middle[low])} by {low}"
    if len(middle) > 1:
        told = f"the least by {low} ({form(middle[low])}) and the most by {high} ({form(middle[high])})"
        if form(middle[low]) == form(middle[high]):
            told = f"{form(middle[low])} by every method"
    yield Figure(
        f"{column}-{place}",
        SECTION,
        f"{title}: {name}",
        f"The {what}, by the share of the weights of {name} that is pruned, a line a method.{floor}",
        f"In the median over sparsities it is {told}.",
        {"data": data, "layout": layout(SPARSITY, axis)},
        mine[[*FACTS, *dict.fromkeys([column, "bound"])]],
    )


def _lines(evidence: Evidence, cells: pd.DataFrame, y: str, form: str) -> list[dict[str, Any]]:
    data = []
    for label in sorted(set(cells["label"])):
        middle = cells[cells["label"] == label].groupby("sparsity")[y].mean()
        look = evidence.looks[label]
        data.append({
            "type": "scatter", "mode": "lines+markers", "name": text(label), "x": middle.index.tolist(),
            "y": middle.tolist(), "line": look.line(), "marker": look.points(8),
            "meta": {"label": label, "rule": "mean", "x": "sparsity", "y": y},
            "hovertemplate": f"%{{fullData.name}} at %{{x:.1%}}: %{{y:{form}}}<extra></extra>",
        })  # fmt: skip
    return data


def by_layer(evidence: Evidence) -> Iterator[Figure]:
    """Sparsity and gap of every layer, of the best at every sparsity."""
    for number, (name, cells) in enumerate(networks(evidence.cells).items()):
        place = f"{slug(name)}-{number}" if number else slug(name)
        rows = [
            {
                "cell": cell.cell,
                "method": f"{cell.label} at {percent(cell.sparsity)}",
                "label": cell.label,
                **layer,
            }
            for cell in best(cells).itertuples()
            for layer in layers(cell.result)
        ]
        if not rows:
            continue
        table = pd.DataFrame(rows)
        for column, title in (("sparsity", "Sparsity by layer"), ("gap", "Gap by layer")):
            table[column] = pd.to_numeric(table[column], errors="coerce")
            mine = table[np.isfinite(table[column])]
            if mine.empty:
                continue
            data = []
            for rank, (method, part) in enumerate(mine.groupby("method", sort=False)):
                look = evidence.looks[part["label"].iloc[0]]
                data.append({
                    "type": "bar", "name": text(method), "x": [text(layer) for layer in part["layer"]],
                    "y": part[column].tolist(),
                    "marker": {"color": look.colour, "pattern": {
                        "shape": PATTERNS[rank % len(PATTERNS)], "fgcolor": "#ffffff", "fgopacity": 0.6,
                        "fillmode": "overlay", "size": 8}},
                    "hovertemplate": "%{x}: %{y:.2%} (%{fullData.name})<extra></extra>",
                })  # fmt: skip
            top, low = mine.loc[mine[column].idxmax()], mine.loc[mine[column].idxmin()]
            told = (
                f"It is the most in layer {top['layer']} ({percent(top[column], 2)}, {top['method']}) and "
                f"the least in layer {low['layer']} ({percent(low[column], 2)}, {low['method']})."
            )
            if top[column] == low[column]:
                told = f"It is {percent(top[column], 2)} in every layer."
            yield Figure(
                f"layers-{column}-{place}",
                SECTION,
                f"{title}: {name}",
                f"The {'share pruned' if column == 'sparsity' else 'certified gap'} of every layer of "
                f"{name}, by "
                "the method of best accuracy at every sparsity.",
                told,
                {
                    "data": data,
                    "layout": layout(
                        {"title": {"text": "layer"}, "type": "category"},
                        {"title": {"text": column}, "tickformat": ".0%"},
                        barmode="group",
                    ),
                },
                table.drop(columns="label"),
                table.drop(columns=["label", "cell"]) if column == "gap" else None,
            )


def by_stage(evidence: Evidence) -> Iterator[Figure]:
    """Accuracy stage by stage, of results that came in several."""
    for number, (name, cells) in enumerate(networks(evidence.cells).items()):
        place = f"{slug(name)}-{number}" if number else slug(name)
        rows = [
            {"cell": cell.cell, "label": cell.label, "asked": cell.sparsity, **stage}
            for cell in cells.itertuples()
            for stage in stages(cell.result)
        ]
        if not rows or not any(row["accuracy"] is not None for row in rows):
            continue
        table = pd.DataFrame(rows)
        data, gains = [], {}
        for (label, asked, _), part in table.groupby(["label", "asked", "cell"], dropna=False):
            title = f"{label} at {percent(asked)}"
            gains[title] = float(part["accuracy"].iloc[-1] - part["accuracy"].iloc[0])
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": text(title),
                    "x": part["stage"].tolist(),
                    "y": part["accuracy"].tolist(),
                    "line": evidence.looks[label].line(),
                    "marker": evidence.looks[label].points(7),
                    "meta": {"label": label},
                    "customdata": part["sparsity"].tolist(),
                    "hovertemplate": "%{fullData.name}, stage %{x}: %{y:.2%}, %{customdata:.1%} "
                    "pruned<extra></extra>",
                }
            )
        least = min(gains, key=gains.__getitem__)
        yield Figure(
            f"stages-{place}",
            SECTION,
            f"Accuracy by stage: {name}",
            f"Accuracy of {name} at the end of every stage, in which it is pruned further.",
            f"From the first stage to the last {least} changes the most for the worse, by "
            f"{100 * gains[least]:+.2f} points.",
            {
                "data": data,
                "layout": layout(
                    {"title": {"text": "stage"}, "dtick": 1},
                    {"title": {"text": "accuracy"}, "tickformat": ".0%"},
                ),
            },
            table.drop(columns="cell"),
        )
