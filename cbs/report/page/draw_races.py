"""Figures of solvers against each other: performance profile, shifted geometric means, gap over time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from cbs.report.page.cells import bounding, solved
from cbs.report.page.figure import Evidence, Figure
from cbs.report.page.optima import best_known
from cbs.report.page.races import FLOOR, Race, means, profile, race
from cbs.report.page.style import layout, text
from cbs.report.page.traces import Trace, quartiles, times
from cbs.report.page.words import leaders, left_out, listed, percent, seconds, several

SECTION = "Solvers compared"
FACTS = ["cell", "task", "instance", "label", "family", "n", "sparsity"]
ROOM = 1.6
"""Of an axis, over its longest bar, for the words beside it."""
LEAST = 1e-5
"""Of an excess on a logarithmic axis: smaller ones are drawn here."""


def profiles(evidence: Evidence) -> Iterator[Figure]:
    """The performance profile of the time to the gap asked."""
    found = race(evidence.cells)
    if found is None:
        return
    curves = {
        label: profile(found.cells.loc[found.cells["label"] == label, "ratio"].to_numpy())
        for label in found.labels
    }
    end = max(float(tau[-1]) for tau, _ in curves.values()) * 1.5
    data: list[dict[str, Any]] = []
    for label, (tau, share) in curves.items():
        look = evidence.looks[label]
        data.append({
            "type": "scatter", "mode": "lines", "name": text(label), "x": [*tau.tolist(), max(end, 2.0)],
            "y": [*share.tolist(), float(share[-1])], "line": look.line(shape="hv"),
            "meta": {"label": label, "rule": "profile", "end": max(end, 2.0)},
            "hovertemplate": "%{fullData.name}: %{y:.1%} within %{x:.3g} times the best<extra></extra>",
        })  # fmt: skip
    first = {label: float(share[0]) for label, (_, share) in curves.items()}
    last = {label: float(share[-1]) for label, (_, share) in curves.items()}
    yield Figure(
        "profile", SECTION, "Performance profile",
        "The share of tasks that a solver brings to the gap asked within a factor (to the right) of the "
        f"quickest solver's seconds, over {_tasks(found)}; a run that did not get there counts as never "
        f"(Dolan and More 2002; times under {seconds(FLOOR)} count as that).{left_out(found.left_out)}",
        _profile_found(first, last),
        {"data": data, "layout": layout(
            {"type": "log", "title": {"text": "seconds over the quickest solver's"}},
            {"title": {"text": "share of tasks"}, "range": [-0.02, 1.02], "tickformat": ".0%"},
        )},
        found.cells[[*FACTS, "outcome", "seconds", "time_limit", "ratio"]],
    )  # fmt: skip


def _profile_found(first: dict[str, float], last: dict[str, float]) -> str:
    """Who is quickest most often and who proves the most, by the shares of tasks at both ends."""
    most = max(last.values())
    if not most:
        return "None of them brings a task to the gap asked."
    quickest, surest = leaders(first), leaders(last)
    if len(quickest) == 1:
        told = f"{quickest[0]} is the quickest most often ({percent(max(first.values()))} of the tasks)"
    else:
        told = (
            f"{listed(quickest)} are the quickest equally often ({percent(max(first.values()))} of the tasks)"
        )
    if len(surest) == len(last):
        return f"{told}; all prove as many ({percent(most)})."
    if len(surest) > 1:
        return f"{told}; {listed(surest)} prove the most ({percent(most)})."
    return f"{told}, and {'it also' if quickest == surest else surest[0]} proves the most ({percent(most)})."


def averages(evidence: Evidence) -> Iterator[Figure]:
    """Shifted geometric means of the time to the gap asked."""
    found = race(evidence.cells)
    if found is None:
        return
    table = means(found, evidence.shift)
    open_ones = table["tasks"] - table["proven"]
    texts = [
        f"{seconds(mean)}{f' ({count} of {tasks} open)' if count else ''}"
        for mean, count, tasks in zip(table["mean_seconds"], open_ones, table["tasks"], strict=True)
    ]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": text(label),
            "y": [text(label)],
            "x": [mean],
            "text": [told],
            "textposition": "outside",
            "cliponaxis": False,
            "showlegend": False,
            "marker": {
                "color": evidence.looks[label].colour,
                "pattern": {
                    "shape": "/" if count else "",
                    "fillmode": "overlay",
                    "fgcolor": "#ffffff",
                    "fgopacity": 0.45,
                    "size": 7,
                },
            },
            "meta": {"label": label, "rule": "shifted", "shift": evidence.shift, "room": ROOM},
            "hovertemplate": "%{y}: %{text}<extra></extra>",
        }
        for label, mean, told, count in zip(
            table["solver"], table["mean_seconds"], texts, open_ones, strict=True
        )
    ]
    best, worst = table.iloc[0], table.iloc[-1]
    yield Figure(
        "means",
        SECTION,
        "Shifted geometric means of seconds",
        f"The geometric mean of the seconds to the gap asked, shifted by {evidence.shift:g} s, over "
        f"{_tasks(found)}; runs that proved less count as their cap, and their solver's bar is "
        f"hatched.{left_out(found.left_out)}",
        f"{best['solver']} needs {seconds(best['mean_seconds'])} in the mean and proves {best['proven']} of "
        f"{best['tasks']}; {worst['solver']} needs {_longer(worst)} and proves {worst['proven']}.",
        {
            "data": data,
            "layout": layout(
                {
                    "title": {"text": "seconds (shifted geometric mean)"},
                    "range": [0, ROOM * float(table["mean_seconds"].max())],
                },
                {"autorange": "reversed", "type": "category"},
                bargap=0.35,
                barmode="overlay",
            ),
        },
        found.cells[[*FACTS, "outcome", "seconds", "time_limit", "cap"]],
        table.rename(
            columns={"mean_seconds": "mean s", "proven_only": "mean s, proven", "ratio": "to the best"}
        ),
        height=150 + 34 * len(table),
    )


def _longer(line: pd.Series) -> str:
    """How long a solver needs, beside the quickest."""
    ratio = f"{line['ratio']:.3g}"
    if ratio == "1":
        return "as long"
    return f"{ratio} times as long" if np.isfinite(line["ratio"]) else seconds(line["mean_seconds"])


def _tasks(found: Race) -> str:
    rest = several(found.tasks_left_out, "task") + " that not all of them ran on left out"
    return f"{several(len(found.tasks), 'task')} that all {len(found.labels)} solvers have" + (
        f" ({rest})" if found.tasks_left_out else ""
    )


def over_time(evidence: Evidence) -> Iterator[Figure]:
    """Median and quartiles of the gap over time, and the median excess over the best value known."""
    runs = solved(evidence.cells)
    runs = runs[runs["cell"].isin(evidence.details.traces)]
    mine = {
        str(label): [(row, evidence.details.traces[row]) for row in cells["cell"]]
        for label, cells in runs.groupby("label")
    }
    mine = {label: pairs for label, pairs in mine.items() if len(pairs) > 1}
    if not mine:
        return
    when = times([trace for pairs in mine.values() for _, trace in pairs])
    axis = {"type": "log", "title": {"text": "seconds"}}
    proving = [label for label in bounding(runs) if label in mine]
    if proving:
        yield _gaps(evidence, {label: mine[label] for label in proving}, when, axis)
    if runs.loc[runs["label"].isin(list(mine)), "problem"].isin(list(best_known(evidence.cells))).any():
        yield _excess(evidence, mine, runs, when, axis)


def _gaps(
    evidence: Evidence,
    mine: dict[str, list[tuple[int, Trace]]],
    when: np.ndarray[Any, Any],
    axis: dict[str, Any],
) -> Figure:
    data, lines = [], []
    final = {}
    for label, pairs in mine.items():
        look = evidence.looks[label]
        low, mid, high = quartiles(trace.at(when, trace.gaps) for _, trace in pairs)
        final[label] = float(mid[-1])
        band = {
            "type": "scatter",
            "mode": "lines",
            "x": when.tolist(),
            "line": {"width": 0},
            "hoverinfo": "skip",
            "showlegend": False,
            "legendgroup": label,
            "meta": {"label": label},
        }
        data += [
            {**band, "y": low.tolist()},
            {**band, "y": high.tolist(), "fill": "tonexty", "fillcolor": look.faint()},
            {"type": "scatter", "mode": "lines", "name": text(label), "x": when.tolist(), "y": mid.tolist(),
             "line": look.line(), "legendgroup": label, "meta": {"label": label},
             "hovertemplate": "%{fullData.name}: %{y:.2%} after %{x:.3g} s<extra></extra>"},
        ]  # fmt: skip
        lines += [
            {
                "label": label,
                "seconds": t,
                "lower_quartile": a,
                "median": b,
                "upper_quartile": c,
                "runs": len(pairs),
            }
            for t, a, b, c in zip(when, low, mid, high, strict=True)
        ]
    best = leaders(final, min)
    closed = [label for label, gap in final.items() if gap <= EXACT_ENOUGH]
    return Figure(
        "gap-time",
        SECTION,
        "Gap over time",
        f"The certified gap of {several(sum(map(len, mine.values())), 'run')} over time: the median, and the "
        "middle half as a band; a run without mask or bound yet has 100%, one that is over keeps its "
        "last gap; each solver's are its own runs.",
        f"In the end the median gap of {listed(closed)} is closed."
        if closed
        else f"In the end {listed(best)} {'has' if len(best) == 1 else 'have'} the least median gap, "
        f"{percent(final[best[0]], 2)}.",
        {
            "data": data,
            "layout": layout(axis, {"title": {"text": "gap"}, "tickformat": ".0%", "range": [-0.02, 1.02]}),
        },
        pd.DataFrame(lines),
    )


EXACT_ENOUGH = 1e-4


def _excess(
    evidence: Evidence, mine: dict[str, list[tuple[int, Trace]]], runs: pd.DataFrame,
    when: np.ndarray[Any, Any], axis: dict[str, Any],
) -> Figure:  # fmt: skip
    best = best_known(evidence.cells)
    problem = dict(zip(runs["cell"], runs["problem"], strict=True))
    data, lines, integrals = [], [], []
    until = float(when[-1])
    for label, pairs in mine.items():
        known = [(trace, best[problem[row]]) for row, trace in pairs if problem[row] in best]
        if not known:
            continue
        low, mid, high = quartiles(trace.at(when, trace.excess(least)) for trace, least in known)
        data.append({
            "type": "scatter", "mode": "lines", "name": text(label), "x": when.tolist(),
            "y": np.maximum(mid, LEAST).tolist(), "line": evidence.looks[label].line(shape="hv"),
            "meta": {"label": label},
            "hovertemplate": "%{fullData.name}: %{y:.3%} after %{x:.3g} s<extra></extra>",
        })  # fmt: skip
        lines += [
            {
                "label": label,
                "seconds": t,
                "lower_quartile": a,
                "median": b,
                "upper_quartile": c,
                "runs": len(known),
            }
            for t, a, b, c in zip(when, low, mid, high, strict=True)
        ]
        integrals.append({
            "solver": label, "runs": len(known),
            "primal integral": float(np.mean([trace.integral(least, until) for trace, least in known])),
            "last excess (median)": float(mid[-1]),
        })  # fmt: skip
    summary = pd.DataFrame(integrals).sort_values("primal integral", kind="stable").reset_index(drop=True)
    last = summary.iloc[-1]
    return Figure(
        "excess-time",
        SECTION,
        "Masks over time",
        "How far the mask found so far is above the best that any solver found, in the median over the runs "
        f"(at most {LEAST:g} is drawn as that); the table has the mean primal integral up to "
        f"{seconds(until)} "
        "(Berthold 2013): 0 is the best mask at once.",
        f"{summary.iloc[0]['solver']} has good masks the earliest: its primal integral is "
        f"{summary.iloc[0]['primal integral']:.3g}, that of {last['solver']} {last['primal integral']:.3g}."
        if summary["primal integral"].nunique() > 1
        else f"The primal integral of {listed(summary['solver'])} is {last['primal integral']:.3g}.",
        {
            "data": data,
            "layout": layout(
                axis,
                {
                    "type": "log",
                    "title": {"text": "excess over the best known"},
                    "tickformat": ".3~%",
                    "dtick": 1,
                },
            ),
        },
        pd.DataFrame(lines),
        summary,
    )
