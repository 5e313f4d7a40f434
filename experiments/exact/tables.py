"""The tables of README.md: how many times as long as ours others take."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cbs.study.frames import records

OURS = "branch-and-bound"
BETTER = {
    "better blind": ("gurobi-blind", "cplex-blind"),
    "better plain": ("gurobi-plain", "cplex-plain"),
}
"""For every row the better of two: Gurobi and CPLEX on the plain model."""
CLASSES = {"48 to 64 inputs": (48, 64), "30 inputs and more": (30, 1000)}
"""Inputs of a row, from and to."""
SLACK = 1e-9
"""Share of a value by which a bound may pass another solver's value before it is called a conflict."""
ENDED = ("optimal", "feasible")
"""Statuses of a peer that ended by itself: `feasible` if its bound, less rounding, just misses the gap."""
ANSWERED = (*ENDED, "time_limit")
NAME = re.compile(r".*-r(\d+)-(joint|selection)-row-(\d+)")
"""Of a row's instance: its place in the layer, variant, per cent pruned."""

Row = dict[str, Any]


def tables(frame: pd.DataFrame) -> str:
    """A table for every variant and class of rows, rows that we did not prove, and conflicts."""
    found, unproven = ratios(frame)
    lines = []
    for variant in ("joint", "selection"):
        for name, (low, high) in CLASSES.items():
            if any(r["variant"] == variant and low <= r["inputs"] <= high for r in found):
                lines += [f"**{variant}, rows of {name}**", "", *table(found, variant, low, high), ""]
    wrong = conflicts(frame)
    lines += [f"Rows that we did not prove within the cap, and left out: {unproven}.", ""]
    lines += [f"Bounds above another solver's value: {len(wrong)}.", *(f"- {line}" for line in wrong)]
    return "\n".join(lines)


def placed(frame: pd.DataFrame) -> list[Row]:
    """Every run with `place`: family, variant and per cent pruned; and `row`, None for whole layers."""
    found = []
    for row in records(frame):
        if row["kind"] == "call":
            row |= {"place": (row["family"], row["variant"], round(100 * row["sparsity"])), "row": None}
        elif (match := NAME.fullmatch(row["instance"])) is not None:
            row |= {"place": (row["family"], match[2], int(match[3])), "row": int(match[1])}
        else:
            continue
        found.append(row)
    return found


def other_count(run: Row) -> bool:
    """Whether a peer with a price solved the row for another number of entries than was asked."""
    return "completed" in (run["result"].get("stats") or {})


def ratios(frame: pd.DataFrame) -> tuple[list[Row], int]:
    """How many times longer every peer took on every row that we proved, and rows that we did not prove.

    A peer stopped by its cap counts with the time it took: the ratio is then a lower bound.
    """
    ours, layers = {}, {}
    peers: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for run in placed(frame):
        if run["kind"] == "call":
            layers[run["place"]] = run["seconds"] / run["m"]
        elif run["solver"] == OURS:
            ours[run["place"], run["row"]] = run
        else:
            peers[run["place"], run["row"]].append(run)
    found, unproven = [], 0
    for place, mine in ours.items():
        if mine["status"] != "optimal":
            unproven += 1
            continue
        answered = [run for run in peers[place] if run["status"] in ANSWERED and not other_count(run)]
        better = []
        for name, pair in BETTER.items():
            two = [run for run in answered if run["solver"] in pair]
            if len(two) == 2:
                best = min(two, key=lambda run: (run["status"] != "optimal", run["seconds"]))
                better.append({**best, "solver": name})
        family, variant, pruned = mine["place"]
        for run in [*better, *answered]:
            alone, theirs = mine["seconds"], run["seconds"]
            layer = layers.get(mine["place"], math.nan)
            found.append(
                {
                    "family": family, "inputs": mine["n"], "variant": variant, "pruned": pruned,
                    "row": mine["row"], "peer": run["solver"], "ratio_alone": theirs / alone,
                    "ratio_in_layer": theirs / layer, "capped": run["status"] not in ENDED,
                    "peer_gap": run["gap"],
                }
            )  # fmt: skip
    return found, unproven


def conflicts(frame: pd.DataFrame) -> list[str]:
    """Bounds that pass another solver's value on the same row: one of the two is wrong."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for run in placed(frame):
        if run["row"] is not None and run["status"] in ANSWERED:
            rows[run["instance"]].append(run)
    lines = []
    for place, found in rows.items():
        high, low = max(found, key=lambda run: run["bound"]), min(found, key=lambda run: run["value"])
        excess = high["bound"] - low["value"]
        if excess > SLACK * abs(low["value"]):
            share = excess / abs(low["value"])
            lines.append(f"{place}: the bound of {high['solver']} is {share:.1e} above {low['solver']}")
    return lines


def cell(chosen: Sequence[Mapping[str, Any]]) -> str:
    """Geometric mean of the ratios, as a lower bound if any is; how many were capped, at what gap."""
    chosen = [row for row in chosen if math.isfinite(row["ratio_in_layer"])]  # whose layer is done, too
    if not chosen:
        return "-"
    mean = math.exp(np.mean([math.log(row["ratio_in_layer"]) for row in chosen]))
    capped = [row["peer_gap"] for row in chosen if row["capped"]]
    text = f"{'> ' if capped else ''}{mean:.3g}"
    if capped:
        text += f" ({len(capped)} of {len(chosen)} capped, median gap {np.median(capped):.1%})"
    return text


def table(found: Sequence[Mapping[str, Any]], variant: str, low: int, high: int) -> list[str]:
    """A line a peer: ratios at every sparsity, over all of them, and with our rows solved alone."""
    chosen = [row for row in found if row["variant"] == variant and low <= row["inputs"] <= high]
    names = [*dict.fromkeys(row["peer"] for row in chosen)]
    sparsities = sorted({row["pruned"] for row in chosen})
    heads = ["peer", "rows", *(f"{s}% pruned" for s in sparsities), "all", "all, our rows alone"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in names:
        of = [row for row in chosen if row["peer"] == name]
        cells = [
            name,
            str(len(of)),
            *(cell([r for r in of if r["pruned"] == s]) for s in sparsities),
            cell(of),
        ]
        alone = math.exp(np.mean([math.log(row["ratio_alone"]) for row in of]))
        cells.append(f"{'> ' if any(row['capped'] for row in of) else ''}{alone:.3g}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines
