"""All figures of a report in their order: to add one, write a function that draws it and name it here."""

from __future__ import annotations

from dataclasses import replace

from cbs.report.page import draw_calls, draw_gaps, draw_masks, draw_prunings, draw_races
from cbs.report.page.figure import Drawing, Evidence, Figure

DRAWINGS: tuple[Drawing, ...] = (
    draw_prunings.against_sparsity,
    draw_prunings.by_layer,
    draw_prunings.by_stage,
    draw_races.profiles,
    draw_races.averages,
    draw_races.over_time,
    draw_gaps.gaps,
    draw_gaps.heuristics,
    draw_gaps.times,
    draw_gaps.contradictions,
    draw_masks.masks,
    draw_calls.measurements,
)
"""Each gives no figure where the cells have nothing for it."""


def figures(evidence: Evidence) -> list[Figure]:
    """The figures that there is data for, each with a name of its own."""
    found: dict[str, Figure] = {}
    for draw in DRAWINGS:
        for figure in draw(evidence):
            name, count = figure.name, 1
            while name in found:
                count += 1
                name = f"{figure.name}-{count}"
            found[name] = replace(figure, name=name)
    return list(found.values())
