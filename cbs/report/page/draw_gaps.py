"""Figures over sizes and sparsities: gaps, seconds with fits, heuristics' excess, consistency."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from cbs.report.page.cells import bounding, solved
from cbs.report.page.figure import Evidence, Figure
from cbs.report.page.fits import growth
from cbs.report.page.optima import excess, excess_table
from cbs.report.page.style import layout, text
from cbs.report.page.words import joined, listed, percent, seconds, several

SECTION, GROWTH = "Gaps", "Growth"
FACTS = ["cell", "instance", "label", "family", "n", "sparsity"]
DRAWN = 4000
"""Points of a figure: of more, every so manieth is drawn; medians are of all."""
STEP = 0.05
"""Of shares pruned, of which medians are taken: rows of different sizes rarely share one exactly."""
DODGE = 0.012
"""By which solvers' points at one size lie apart, in the logarithm."""
LEAST = 1e-5
"""Of an excess on a logarithmic axis."""


def gaps(evidence: Evidence) -> Iterator[Figure]:
    """The certified gap against the number of inputs, and against the share pruned."""
    runs = solved(evidence.cells)
    runs = runs[runs["label"].isin(bounding(runs)) & (runs["state"] == "done")].copy()
    runs["gap"] = runs["gap"].fillna(1.0).clip(upper=1.0)
    for name, column, title, axis in (
        ("gap-n", "n", "Gap against inputs", {"title": {"text": "inputs n"}, "type": "log"}),
        (
            "gap-sparsity",
            "sparsity",
            "Gap against sparsity",
            {"title": {"text": "share pruned"}, "tickformat": ".0%"},
        ),
    ):
        mine = runs[np.isfinite(runs[column])]
        if mine[column].nunique() < 2:
            continue
        group = "n" if column == "n" else "share"
        mine = mine.assign(share=(mine["sparsity"] / STEP).round() * STEP)
        medians = mine.groupby(["label", group])["gap"].median()
        largest = mine[group].max()
        there = {label: value for (label, x), value in medians.items() if x == largest}
        best, worst = (f(there, key=there.__getitem__) for f in (min, max))
        steps = "" if column == "n" else f" (shares in steps of {percent(STEP, 0)})"
        where = f"n = {largest:g}" if column == "n" else f"{percent(largest)} pruned"
        low, high = percent(there[best], 2), percent(there[worst], 2)
        told = f"the median gap is between {low} ({best}) and {high} ({worst})"
        if low == high:
            told = f"the median gap of {listed(sorted(there))} is {low}"
        yield Figure(
            name, SECTION, title,
            f"The certified gap at the end of {several(len(mine), 'run')}, each a point, with the median of "
            f"every solver as a line{steps}{_drawn(len(mine))}.",
            f"At {where} {told}.",
            {"data": _points(evidence, mine, column, "gap", ".2%", group), "layout": layout(
                axis, {"title": {"text": "gap"}, "tickformat": ".0%", "range": [-0.03, 1.03]})},
            mine[[*FACTS, *(["share"] if group == "share" else []), "gap", "outcome", "seconds"]],
        )  # fmt: skip


def _drawn(count: int) -> str:
    return f" (one point in {-(-count // DRAWN)} is drawn, medians are of all)" if count > DRAWN else ""


def _points(
    evidence: Evidence, runs: pd.DataFrame, x: str, y: str, form: str, median: str | None = None
) -> list[dict[str, Any]]:
    """Points of every label, and their medians over `median`; those of many at one place lie side by side."""
    labels = sorted(set(runs["label"]))
    stride = -(-len(runs) // DRAWN)
    data: list[dict[str, Any]] = []
    for place, label in enumerate(labels):
        mine, look = runs[runs["label"] == label], evidence.looks[label]
        shown = mine.iloc[::stride]
        step = place - (len(labels) - 1) / 2
        dodge: dict[str, Any] = (
            {"factor": float(np.exp(step * DODGE))} if x == "n" else {"add": step * DODGE / 4}
        )
        moved = shown[x] * dodge["factor"] if "factor" in dodge else shown[x] + dodge["add"]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": text(label),
                "x": moved.tolist(),
                "y": shown[y].tolist(),
                "marker": look.points(6.5, opacity=0.55),
                "legendgroup": label,
                "showlegend": median is None,
                "customdata": [[text(i), a] for i, a in shown[["instance", x]].itertuples(index=False)],
                "meta": {"label": label, "rule": "points", "x": x, "y": y, "stride": stride, **dodge},
                "hovertemplate": f"%{{fullData.name}}, %{{customdata[0]}}<br>{x} %{{customdata[1]}}: "
                f"%{{y:{form}}}<extra></extra>",
            }
        )
        if median is not None:
            middle = mine.groupby(median)[y].median()
            data.append({
                "type": "scatter", "mode": "lines+markers", "name": text(label), "x": middle.index.tolist(),
                "y": middle.tolist(), "line": look.line(), "marker": look.points(7), "legendgroup": label,
                "meta": {"label": label, "rule": "median", "x": median, "y": y},
                "hovertemplate": f"%{{fullData.name}}, median at {x} %{{x}}: %{{y:{form}}}<extra></extra>",
            })  # fmt: skip
    return data


def times(evidence: Evidence) -> Iterator[Figure]:
    """Seconds against inputs with fits of a power law and of an exponential."""
    runs = solved(evidence.cells)
    runs = runs[
        runs["label"].isin(bounding(runs)) & np.isfinite(runs["n"]) & np.isfinite(runs["seconds"])
    ].copy()
    if runs["n"].nunique() < 2:
        return
    table, fits = growth(runs)
    runs["seconds"] = runs["seconds"].clip(lower=1e-4)
    data = _points(evidence, runs, "n", "seconds", ".3g")
    for label, found in fits.items():
        sizes = np.geomspace(found[0].least, found[0].most * 1.3, 40)
        look = evidence.looks[label]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"{text(label)}: {_law(found[0])}",
                "x": sizes.tolist(),
                "y": found[0].seconds(sizes).tolist(),
                "line": look.line(),
                "meta": {"label": label},
                "hovertemplate": "%{fullData.name}<br>n = %{x:.0f}: %{y:.3g} s<extra></extra>",
            }
        )
    largest = ", of every solver at its largest time limit" if runs["time_limit"].nunique() > 1 else ""
    shapes, notes = _limits(runs)
    capped = int((runs["outcome"] == "capped").sum())
    censored = (
        f"; {several(capped, 'run was', 'runs were')} stopped by a limit and not in the fits"
        if capped
        else ""
    )
    yield Figure(
        "time-n",
        GROWTH,
        "Seconds against inputs",
        "Seconds of every run against the inputs n, each a point, with the better of two "
        "least-squares fits to "
        f"the runs that proved the gap{largest}, a power of n or an exponential in n{censored}.",
        _growth_found(table) if len(table) else "There are too few proven runs or sizes for a fit.",
        {
            "data": data,
            "layout": layout(
                {"type": "log", "title": {"text": "inputs n"}},
                {"type": "log", "title": {"text": "seconds"}},
                shapes=shapes,
                annotations=notes,
            ),
        },
        runs[[*FACTS, "outcome", "seconds", "time_limit"]],
        _growth_table(table) if len(table) else None,
        height=480,
    )


def _law(fit: Any) -> str:
    return f"n^{fit.slope:.2f}" if fit.model == "power" else f"{np.exp(fit.slope):.3f}^n"


def _limits(runs: pd.DataFrame) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A line at every time limit."""
    shapes, notes = [], []
    known = runs["time_limit"][np.isfinite(runs["time_limit"]) & (runs["time_limit"] > 0)]
    for limit in sorted(set(known))[-4:]:
        shapes.append({"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": limit, "y1": limit,
                       "line": {"dash": "dot", "width": 1, "color": "#7f8896"}})  # fmt: skip
        notes.append(
            {
                "xref": "paper",
                "x": 0,
                "xanchor": "left",
                "yref": "y",
                "y": float(np.log10(limit)),
                "yanchor": "bottom",
                "text": f"limit {seconds(limit)}",
                "showarrow": False,
            }
        )
    return shapes, notes


def _growth_table(table: pd.DataFrame) -> pd.DataFrame:
    made = table.rename(
        columns={
            "model": "fit",
            "slope": "exponent or rate",
            "low": "95% from",
            "high": "95% to",
            "residual": "residual (log s)",
            "limit": "limit s",
            "limit_at_n": "limit expected at n",
        }
    )
    return made.drop(columns=["intercept", "least", "most"])


def _growth_found(table: pd.DataFrame) -> str:
    power = table[table["model"] == "power"].sort_values("slope")
    told = [
        f"{row.solver} grows as n to the {row.slope:.2f} (95%: {row.low:.2f} to {row.high:.2f})"
        for row in power.itertuples()
    ]
    ends = table[table["better"] & np.isfinite(table["limit_at_n"])]
    reach = [f"{row.solver} n = {row.limit_at_n:.0f}" for row in ends.sort_values("limit_at_n").itertuples()]
    return joined([
        f"By the power law {listed(told, 4)}.",
        f"By the better fit the limit is expected at: {listed(reach)}." if reach else "",
    ])  # fmt: skip


def heuristics(evidence: Evidence) -> Iterator[Figure]:
    """The distribution of the excess of solvers without proofs over optima that others proved."""
    runs = excess(evidence.cells)
    if runs.empty:
        return
    table = excess_table(runs)
    runs = runs.assign(excess=np.where(runs["exact"], 0.0, runs["excess"]))
    data = []
    end = max([*runs["excess"][np.isfinite(runs["excess"])], 10 * LEAST]) * 1.5
    for label in sorted(set(runs["label"])):
        mine, look = runs[runs["label"] == label], evidence.looks[label]
        x, y = distribution(mine["excess"].to_numpy(), end)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": text(label),
                "x": x,
                "y": y,
                "line": look.line(shape="hv"),
                "meta": {"label": label, "rule": "distribution", "y": "excess", "end": end, "least": LEAST},
                "hovertemplate": "%{fullData.name}: %{y:.1%} of the runs at most %{x:.3%} above the "
                "optimum<extra></extra>",
            }
        )
    first, last = table.iloc[0], table.iloc[-1]
    others = f"; {last['solver']} in {percent(last['share_optimal'])}, {_above(last)}."
    yield Figure(
        "excess",
        SECTION,
        "Excess over proven optima",
        "The share of runs whose mask costs at most so much more than the optimum, of solvers that "
        "prove less "
        f"than half of them, on {several(runs['problem'].nunique(), 'problem')} whose optimum some "
        "solver proved; at the left end, "
        "the share that found an optimum, up to the gap of its proof.",
        f"{first['solver']} finds the optimum in {percent(first['share_optimal'])} of its runs and is "
        f"{_above(first)} it in the mean{others if len(table) > 1 else '.'}",
        {
            "data": data,
            "layout": layout(
                {
                    "type": "log",
                    "title": {"text": "excess over the optimum"},
                    "tickformat": ".3~%",
                    "dtick": 1,
                },
                {"title": {"text": "share of runs"}, "tickformat": ".0%", "range": [-0.02, 1.02]},
            ),
        },
        runs[[*FACTS, "value", "optimum", "excess", "seconds"]],
        table.rename(columns=lambda name: name.replace("_", " ")),
    )


def _above(line: pd.Series) -> str:
    """How far a solver is above the optimum in the mean; infinitely far where one is 0 and it is not."""
    excess = float(line["mean_excess"])
    return f"{percent(excess, 2) if np.isfinite(excess) else 'infinitely far'} above"


def distribution(values: np.ndarray[Any, Any], end: float) -> tuple[list[float], list[float]]:
    """The cumulative distribution as steps from `LEAST` on, where what is smaller is, to `end`."""
    known = np.sort(np.maximum(values[np.isfinite(values)], LEAST))
    x = np.unique(np.concatenate([[LEAST], known]))
    y = np.searchsorted(known, x, side="right") / max(len(values), 1)
    return [*x.tolist(), end], [*y.tolist(), float(y[-1])]


def contradictions(evidence: Evidence) -> Iterator[Figure]:
    """Bounds above others' values: there should be none."""
    found = evidence.consistency
    if not found.pairs:
        return
    by, worst = found.by_solver, found.contradictions
    names = [text(name) for name in by["solver"]]
    colours = [evidence.looks[name].colour for name in by["solver"]]
    data = [
        {"type": "bar", "orientation": "h", "name": "pairs that agree", "y": names,
         "x": (by["pairs"] - by["contradictions"]).tolist(), "marker": {"color": colours},
         "hovertemplate": "%{y}: %{x} pairs agree<extra></extra>"},
        {"type": "bar", "orientation": "h", "name": "contradictions", "y": names,
         "x": by["contradictions"].tolist(), "marker": {"color": "#C1272D"},
         "hovertemplate": "%{y}: %{x} contradictions<extra></extra>"},
    ]  # fmt: skip
    told = (
        f"{several(len(worst), 'contradiction')}: the worst is the bound of {worst.iloc[0]['solver']}, "
        f"{worst.iloc[0]['relative']:.2g} (relative) above a mask of {worst.iloc[0]['other']} on "
        f"{worst.iloc[0]['instance']}."
        if len(worst)
        else f"None of {several(found.pairs, 'pair')} is contradictory."
    )
    yield Figure(
        "consistency",
        "Consistency",
        "Bounds against values of others",
        f"Every solver's bounds against every other run's values of the same problem: "
        f"{several(found.pairs, 'pair')} on {several(found.problems, 'problem')}; a bound above a "
        "value by more "
        "than rounding (one in a million) contradicts it, as one of both is wrong.",
        told,
        {
            "data": data,
            "layout": layout(
                {"title": {"text": "pairs compared"}, "rangemode": "tozero"},
                {"autorange": "reversed", "type": "category"},
                barmode="stack",
                showlegend=False,
            ),
        },
        worst if len(worst) else by,
        worst.drop(columns=["cell", "problem"]) if len(worst) else by,
        height=130 + 30 * len(by),
    )
