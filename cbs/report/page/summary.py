"""The top of a report: what was run, how it went, on what, and what a reader must be warned of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cbs.report.page.cells import solved
from cbs.report.page.figure import Evidence
from cbs.report.page.words import listed, seconds, several

if TYPE_CHECKING:
    import pandas as pd

UNTOLD = "not recorded"
"""A machine that a study took over without its name."""
ERRORS = 12
"""Kinds of errors that are listed."""


@dataclass(frozen=True)
class Summary:
    """What stands at the top.

    Attributes:
        facts: names and values.
        warnings: a sentence each.
        errors: counts, solver and text of the failed cells, the most frequent first.
    """

    facts: Sequence[tuple[str, str]]
    warnings: Sequence[str] = ()
    errors: Sequence[tuple[int, str, str]] = field(default=())


def summary(evidence: Evidence, facts: Mapping[str, Any] | None = None) -> Summary:
    """Facts, warnings and errors, after `facts` of the caller's."""
    cells = evidence.cells
    states = Counter(cells["state"])
    missing = states["planned"] + states["running"]
    runs = cells[cells["state"] == "done"]
    lines = [(name, str(value)) for name, value in (facts or {}).items()]
    counts = ", ".join(
        f"{states[state]:,} {state}" for state in ("done", "failed", "running", "planned") if states[state]
    )
    lines += _named("study", cells["study"])
    lines.append(("cells", f"{len(cells):,}: {counts or 'none'}"))
    kinds = Counter(cells["kind"])
    if len(kinds) > 1:
        lines.append(("kinds", ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())))
    races = solved(cells)
    if len(races):
        lines.append(
            (
                "problems",
                f"{races['problem'].nunique():,} of {listed(_words(races['family'])) or 'no family'}",
            )
        )
        lines.append(("solvers", listed(sorted(set(races["label"])), 20)))
        lines.append(
            ("time limits", listed([seconds(t) for t in sorted(set(races["time_limit"].dropna()))]) or "none")
        )
    if kinds["prune"]:
        mine = cells[cells["kind"] == "prune"]
        lines.append(("networks", listed(_words(mine["instance"]))))
        lines.append(("methods", listed(sorted(set(mine["label"])), 40)))
    if kinds["call"]:
        lines.append(("functions", listed(sorted(set(cells.loc[cells["kind"] == "call", "label"])), 20)))
    lines += [*_named("machine", cells["machine"]), *_named("version", cells["version"])]
    when = sorted(filter(None, [*runs["started"], *runs["finished"]]))
    if when:
        lines.append(
            ("run", when[0][:19] if when[0][:16] == when[-1][:16] else f"{when[0][:19]} to {when[-1][:19]}")
        )
    spent = runs["seconds"].sum()
    if spent > 0:
        lines.append(("computing", f"{seconds(float(spent))} of runs in all"))
    return Summary(lines, _warnings(evidence, states["failed"], missing), _errors(cells))


def _warnings(evidence: Evidence, failed: int, missing: int) -> list[str]:
    told, cells, details = [], evidence.cells, evidence.details
    machines = [name for name in _words(cells["machine"]) if name != UNTOLD]
    versions = _words(cells["version"])
    if len(machines) > 1:
        told.append(
            f"The cells were run on {len(machines)} machines ({listed(machines)}): seconds of one are not "
            "those of another."
        )
    if len(versions) > 1:
        told.append(
            f"The cells were run by {len(versions)} versions ({listed(versions)}); of cells that differ in "
            "version or machine alone the latest is in the comparisons."
        )
    if failed:
        told.append(f"{several(failed, 'cell')} failed: a failed run counts as one that reached nothing.")
    if missing:
        told.append(f"{several(missing, 'cell is', 'cells are')} missing: not run yet, or running.")
    wrong = evidence.consistency.contradictions
    if len(wrong):
        told.append(
            f"{several(len(wrong), 'bound contradicts', 'bounds contradict')} another run's value: see "
            "Consistency."
        )
    if details.unread:
        told.append(
            f"Traces and masks of {several(details.unread, 'cell')} are not in this page: there are too many."
        )
    if details.unreadable:
        row, why = next(iter(details.unreadable.items()))
        told.append(
            f"The arrays of {several(len(details.unreadable), 'cell')} can't be read, the first those of "
            f"{cells.loc[row, 'key'][:16]} ({why})."
        )
    return told


def _errors(cells: pd.DataFrame) -> list[tuple[int, str, str]]:
    failed = cells[cells["state"] == "failed"]
    counts = Counter(
        (label, (error or "no error was kept").strip().splitlines()[-1][:300])
        for label, error in zip(failed["label"], failed["error"], strict=True)
    )
    return [(count, label, error) for (label, error), count in counts.most_common(ERRORS)]


def _words(column: pd.Series) -> list[str]:
    return sorted({word for word in column if word})


def _named(name: str, column: pd.Series) -> list[tuple[str, str]]:
    words = _words(column)
    return [(name if len(words) == 1 else f"{name}s", listed(words))] if words else []
