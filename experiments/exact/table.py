"""Tables of ratios from the runs, into results/ and README.md."""

import csv
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
FIELDS = [
    "network", "layer", "inputs", "variant", "pruned", "row", "rows", "solver", "cap",
    "seconds", "status", "value", "bound", "gap", "nodes", "kept",
]  # fmt: skip
RATIOS = [
    "network", "layer", "inputs", "variant", "pruned", "row", "peer", "seconds_alone", "seconds_in_layer",
    "seconds_peer", "ratio_alone", "ratio_in_layer", "capped", "peer_gap",
]  # fmt: skip
BEGIN, END = "<!-- ratios: begin (written by run.py) -->", "<!-- ratios: end -->"
BETTER = {
    "better blind": ("gurobi-blind", "cplex-blind"),
    "better plain": ("gurobi-plain", "cplex-plain"),
}
"""For every row the better of two: Gurobi and CPLEX on the plain model."""
SLACK = 1e-9
"""Share of a value by which a bound may pass another solver's value before it is called a conflict."""
ENDED = ("optimal", "feasible")
"""Statuses of a peer that ended by itself: `feasible` if its bound, less rounding, just misses the gap."""

Run = Mapping[str, str]


def ratios(runs: Sequence[Run], config: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """How many times longer every peer took on every row that we proved, and rows that we did not prove.

    A peer stopped by its cap counts with the time it took: the ratio is then a lower bound.
    """
    ours, layers = {}, {}
    peers: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        place = tuple(run[name] for name in ("network", "layer", "variant", "pruned"))
        if run["solver"] != config["ours"]:
            peers[*place, run["row"]].append(run)
        elif run["row"] == "all":
            layers[place] = float(run["seconds"]) / int(run["rows"])
        else:
            ours[*place, run["row"]] = run
    found, unproven = [], 0
    for place, mine in ours.items():
        if mine["status"] != "optimal":
            unproven += 1
            continue
        answered = [run for run in peers[place] if run["status"] in ("optimal", "time_limit", "feasible")]
        better = []
        for name, pair in BETTER.items():
            two = [run for run in answered if run["solver"] in pair]
            if len(two) == 2:
                best = min(two, key=lambda run: (run["status"] != "optimal", float(run["seconds"])))
                better.append({**best, "solver": name})
        for run in [*better, *answered]:
            alone, theirs = float(mine["seconds"]), float(run["seconds"])
            layer = layers.get(place[:-1], math.nan)
            found.append(
                {
                    **{name: mine[name] for name in RATIOS[:6]},
                    "peer": run["solver"], "seconds_alone": alone, "seconds_in_layer": layer,
                    "seconds_peer": theirs, "ratio_alone": theirs / alone, "ratio_in_layer": theirs / layer,
                    "capped": int(run["status"] not in ENDED), "peer_gap": run["gap"],
                }
            )  # fmt: skip
    return found, unproven


def conflicts(runs: Sequence[Run]) -> list[str]:
    """Bounds that pass another solver's value on the same row: one of the two is wrong."""
    rows: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        if run["value"] and run["status"] in ("optimal", "time_limit", "feasible"):
            rows[*(run[name] for name in ("network", "layer", "variant", "pruned", "row"))].append(run)
    lines = []
    for place, found in rows.items():
        high = max(found, key=lambda run: float(run["bound"]))
        low = min(found, key=lambda run: float(run["value"]))
        excess = float(high["bound"]) - float(low["value"])
        if excess > SLACK * abs(float(low["value"])):
            share = excess / abs(float(low["value"]))
            lines.append(
                f"{' '.join(place)}: the bound of {high['solver']} is {share:.1e} above {low['solver']}"
            )
    return lines


def cell(chosen: Sequence[Mapping[str, Any]]) -> str:
    """Geometric mean of the ratios, as a lower bound if any is; how many were capped, at what gap."""
    if not chosen:
        return "-"
    mean = math.exp(np.mean([math.log(row["ratio_in_layer"]) for row in chosen]))
    capped = [float(row["peer_gap"]) for row in chosen if row["capped"]]
    text = f"{'> ' if capped else ''}{mean:.3g}"
    if capped:
        text += f" ({len(capped)} of {len(chosen)} capped, median gap {np.median(capped):.1%})"
    return text


def table(found: Sequence[Mapping[str, Any]], variant: str, low: int, high: int) -> list[str]:
    """A line a peer: ratios at every sparsity, over all of them, and with our rows solved alone."""
    chosen = [row for row in found if row["variant"] == variant and low <= int(row["inputs"]) <= high]
    names = [*dict.fromkeys(row["peer"] for row in chosen)]
    sparsities = sorted({row["pruned"] for row in chosen}, key=float)
    heads = ["peer", "rows", *(f"{float(s):.0%} pruned" for s in sparsities), "all", "all, our rows alone"]
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


def write_tables(runs: Sequence[Run], config: dict[str, Any], folder: Path) -> None:
    """Write `ratios.csv` and `table.md` into a folder, and the table into README.md if it is ours."""
    found, unproven = ratios(runs, config)
    with (folder / "ratios.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, RATIOS)
        writer.writeheader()
        writer.writerows(found)
    lines = []
    for variant in config["peers"]:
        for name, (low, high) in config["classes"].items():
            if any(r["variant"] == variant and low <= int(r["inputs"]) <= high for r in found):
                lines += [f"**{variant}, rows of {name}**", "", *table(found, variant, low, high), ""]
    wrong = conflicts(runs)
    lines += [f"Rows that we did not prove within the cap, and left out: {unproven}.", ""]
    lines += [f"Bounds above another solver's value: {len(wrong)}.", *(f"- {line}" for line in wrong)]
    text = "\n".join(lines)
    (folder / "table.md").write_text(text + "\n")
    print(text)
    readme = HERE / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    if folder.resolve() == (HERE / "results").resolve():
        readme.write_text(before + BEGIN + "\n" + text.rstrip() + "\n" + END + rest.split(END)[1])
