"""Tables of the studies: heuristics' excess over proven optima, and who proves what, by size."""

import math

import numpy as np

from cbs.report.page.cells import prepared
from cbs.report.page.fits import growth as fits_of
from cbs.report.page.optima import excess
from cbs.study.frames import records
from cbs.study.markdown import markdown
from cbs.study.tables import shifted

SHARES = (0.5, 0.75, 0.9)
"""Sparsities that the studies ask for; counts round them on narrow rows."""


def heuristics(frame):
    """By heuristic and sparsity: how often it finds an optimum, median and greatest excess over it."""
    runs = excess(prepared(frame))
    head = ["heuristic", "rows", "optimal"]
    near = np.array(SHARES)[np.abs(runs["sparsity"].to_numpy()[:, None] - SHARES).argmin(axis=1)]
    runs = runs.assign(share=near)
    shares = sorted(set(near))
    lines = []
    for label, mine in sorted(runs.groupby("label"), key=lambda pair: pair[1]["excess"].mean()):
        line = [label, len(mine), f"{mine['exact'].mean():.0%}"]
        for share in shares:
            part = mine[mine["share"] == share]["excess"]
            line.append(f"{part.median():.1%} / {part.max():.1%}" if len(part) else None)
        lines.append(line)
    return markdown([*head, *(f"{share:.0%} pruned" for share in shares)], lines)


def where_heuristics_fail(frame):
    """By family of rows: the median excess of every heuristic."""
    runs = excess(prepared(frame))
    order = runs.groupby("label")["excess"].median().sort_values().index
    families = sorted(set(runs["family"]))
    lines = []
    for family in families:
        mine = runs[runs["family"] == family]
        medians = mine.groupby("label")["excess"].median()
        width = "-".join(f"{n:.0f}" for n in dict.fromkeys([mine["n"].min(), mine["n"].max()]))
        lines.append([family, width, mine["problem"].nunique(), *(
            f"{medians[label]:.1%}" if label in medians else None for label in order
        )])  # fmt: skip
    return markdown(["rows of", "inputs", "problems", *order], lines)


def proofs(frame):
    """By solver, variant and sparsity: rows proven of those tried, and the shifted mean of seconds."""
    rows = [row for row in records(frame) if row["kind"] == "solve"]
    for row in rows:
        row["share"] = min(SHARES, key=lambda share: abs(share - row["sparsity"]))
    shares = sorted({row["share"] for row in rows})
    groups = {}
    for row in rows:
        groups.setdefault((row["variant"], row["solver"]), []).append(row)
    lines = []
    for (variant, solver), mine in sorted(groups.items(), key=lambda pair: (pair[0][0], _mean(pair[1]))):
        proven = [row for row in mine if row["status"] == "optimal"]
        line = [variant, solver, f"{len(proven)} of {len(mine)}", f"{_mean(mine):.2f}"]
        for share in shares:
            part = [row for row in mine if row["share"] == share]
            done = sum(row["status"] == "optimal" for row in part)
            line.append(f"{done} of {len(part)}, {_mean(part):.2f}" if part else None)
        lines.append(line)
    return markdown(
        ["variant", "solver", "proven", "mean s", *(f"{share:.0%} pruned" for share in shares)], lines
    )


def growth(frame):
    """By solver, variant and inputs: median seconds where all were proven, and how many were."""
    rows = [row for row in records(frame) if row["kind"] == "solve"]
    sizes = sorted({row["n"] for row in rows})
    groups = {}
    for row in rows:
        groups.setdefault((row["variant"], round(row["sparsity"], 1), row["solver"]), []).append(row)
    lines = []
    for (variant, share, solver), mine in sorted(groups.items()):
        line = [variant, f"{share:.0%}", solver]
        for n in sizes:
            part = [row for row in mine if row["n"] == n]
            done = [row["seconds"] for row in part if row["status"] == "optimal"]
            gaps = [row["gap"] for row in part if row["status"] != "optimal" and math.isfinite(row["gap"])]
            if part and len(done) == len(part):
                line.append(f"{np.median(done):.2f}")
            else:
                line.append(f"{np.median(gaps):.0%} left" if gaps else None)
        lines.append(line)
    return markdown(["variant", "pruned", "solver", *(f"n = {n}" for n in sizes)], lines)


def _mean(rows):
    """The shifted geometric mean of seconds; a capped run counts with what it took."""
    return shifted(np.array([row["seconds"] for row in rows], dtype=float))


def fits(frame):
    """By variant and solver: how proven seconds grow with inputs, and where the limit is expected."""
    cells = prepared(frame)
    lines = []
    for variant in sorted(set(cells["variant"])):
        made, _ = fits_of(cells[cells["variant"] == variant])
        if made.empty:
            continue
        for solver, mine in made.groupby("solver"):
            both = {row["model"]: row for row in mine.to_dict("records")}
            power, exponential = both["power"], both["exponential"]
            better = mine[mine["better"]].iloc[0]
            lines.append([
                variant, solver, f"{power['runs']:.0f} of {power['runs'] + power['capped']:.0f}",
                f"n^{power['slope']:.1f} ({power['low']:.1f} to {power['high']:.1f})",
                f"{np.exp(exponential['slope']):.3f}^n", better["model"], f"{better['limit_at_n']:.0f}",
            ])  # fmt: skip
    head = ["variant", "solver", "proven", "power law (95%)", "exponential", "fits better", "limit at n"]
    return markdown(head, lines)
