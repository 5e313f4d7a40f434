"""The tables of README.md from the study's cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from cbs.study.markdown import markdown
from cbs.study.schema import DONE

TREES = ("before", "after")
GAP = 1e-4
ASKED = {
    (64, 0.5): "half the time", (64, 0.75): "half the time", (64, 0.9): "half the time",
    (100, 0.5): "0.5 s", (100, 0.75): "0.5 s", (100, 0.9): "0.5 s",
    (144, 0.5): "1 s", (144, 0.75): "60 s", (144, 0.9): "300 s",
    (196, 0.5): "1 s", (196, 0.75): "60 s", (196, 0.9): "300 s",
    (256, 0.5): "proven", (256, 0.75): "5%", (256, 0.9): "5%",
    (784, 0.5): "0.5%", (784, 0.8): "6%", (784, 0.95): "25%",
}  # fmt: skip
"""Of rows by inputs and share pruned: seconds to the proof, or a gap."""
ASKED_OF_LAYERS = {
    ("mlpnet", "50%"): "2%", ("mlp-300", "50%"): "5%", ("encoder", "50%"): "20%",
    ("mlpnet", "2:4"): "half", ("mlp-300", "2:4"): "half", ("encoder", "2:4"): "half",
}  # fmt: skip
OURS = "branch-and-bound"
DEFAULTS = {"solver": OURS, "variant": "joint", "seed": 0, "label": ""}
FIRST = 1.0
"""Seconds within which the best mask is to be in hand."""

Row = dict[str, Any]


def targets(frame: pd.DataFrame) -> str:
    """What is asked of rows, and what is measured: a line for every size and share pruned."""
    head = ["n", "pruned", "asked", "rows"]
    for tree in TREES:
        head += [f"{tree}: proven", "s", "gap %"]
    head += ["before / after", "best mask in 1 s, of after"]
    return markdown(head, _targets(own(frame)))


def _targets(rows: list[Row]) -> Iterator[list[object]]:
    for key in sorted({(row["n"], row["sparsity"]) for row in rows}):
        of = {tree: [row for row in rows if (row["n"], row["sparsity"]) == key and row["tree"] == tree]
              for tree in TREES}  # fmt: skip
        line: list[object] = [key[0], f"{key[1]:.0%}", ASKED.get(key), max(map(len, of.values()))]
        for tree in TREES:
            line += summed(of[tree])
        held = [row for row in of["after"] if row.get("held") is not None]
        early = f"{sum(row['held'] <= FIRST for row in held)} of {len(held)}" if held else None
        yield [*line, ratio(of["before"], of["after"]), early]


def summed(rows: list[Row]) -> list[object]:
    """Number proven, seconds in the geometric mean, and the mean gap of what is open."""
    if not rows:
        return [None, None, None]
    open_ = [row["gap"] for row in rows if row["gap"] > GAP]
    sign = ">" if open_ else ""
    return [
        f"{len(rows) - len(open_)} of {len(rows)}", f"{sign}{geometric(map(spent, rows)):.3g}",
        f"{100 * float(np.mean(open_)):.2f}" if open_ else None,
    ]  # fmt: skip


def ratio(before: list[Row], after: list[Row]) -> str | None:
    """How many times as long as after it took before, on the rows that both have and one of them proves."""
    first = {place(row): row for row in before}
    pairs = [(first[place(row)], row) for row in after if place(row) in first]
    pairs = [(a, b) for a, b in pairs if min(a["gap"], b["gap"]) <= GAP]
    if not pairs:
        return None
    sign = ">" if any(a["gap"] > GAP for a, _ in pairs) else ""
    return f"{sign}{geometric(spent(a) / spent(b) for a, b in pairs):.2f}"


def rows(frame: pd.DataFrame) -> str:
    """Every row of 64 inputs and more, before and after: a line a row and share pruned."""
    head = ["n", "row", "pruned"]
    for tree in TREES:
        head += [f"{tree}: s", "gap %", "nodes", "best mask at s"]
    found: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in own(frame):
        found.setdefault(place(row), {})[row["tree"]] = row
    lines = []
    for key, of in sorted(found.items(), key=lambda item: (item[0][0], item[0][1:4], item[0][4], item[0][5])):
        line: list[object] = [key[0], named(next(iter(of.values()))), f"{key[5]:.0%}"]
        for tree in TREES:
            line += alone(of.get(tree))
        lines.append(line)
    return markdown(head, lines)


def alone(row: Row | None) -> list[object]:
    if row is None:
        return [None] * 4
    held = row.get("held")
    return [f"{spent(row):.3g}", gap(row), row["nodes"], None if held is None else f"{held:.2f}"]


def peers(frame: pd.DataFrame) -> str:
    """How many times as long as ours each peer takes, by row or layer, and the gap at its cap."""
    found = [row for row in cells(frame) if row["solver"] != "relaxation"]
    ours = {
        held(row): row for row in found if row["solver"] == OURS and row["tree"] == ours_of(found)
    }  # fmt: skip
    kinds: dict[tuple[str, int, str, float], list[tuple[Row, Row]]] = {}
    for row in found:
        if row["solver"] != OURS and held(row) in ours:
            label = f"{row['solver']}{'-' if row.get('label') else ''}{row.get('label') or ''}"
            kind = row["variant"] if "row" in row else f"{row['variant']}, layers"
            kinds.setdefault((kind, row["n"], label, row["limit"]), []).append((row, ours[held(row)]))
    lines = []
    for (kind, n, label, limit), pairs in sorted(kinds.items()):
        capped = [row["gap"] for row, _ in pairs if row["gap"] > GAP]
        times = geometric(spent(peer) / spent(our) for peer, our in pairs)
        lines.append([
            kind, n, label, f"{limit:g}", len(pairs), f"{geometric(spent(our) for _, our in pairs):.3g}",
            f"{geometric(spent(peer) for peer, _ in pairs):.3g}", f"{'>' if capped else ''}{times:.3g}",
            len(capped), f"{100 * float(np.median(capped)):.1f}" if capped else None,
        ])  # fmt: skip
    return markdown(
        ["variant", "n", "peer", "cap s", "cells", "ours s", "peer s", "times as long", "capped",
         "median gap %"], lines
    )  # fmt: skip


def held(row: Row) -> tuple[Any, ...]:
    """What a peer's cell has in common with ours."""
    return (
        row["variant"], row["n"], row["network"], row["layer"], row["seed"], row.get("row"),
        row["sparsity"] if "row" in row else row["budget"],
    )  # fmt: skip


def ours_of(found: list[Row]) -> str:
    """The state that peers are held against: the later one that has cells."""
    return "after" if any(row["tree"] == "after" and row["solver"] == OURS for row in found) else (
        "before"
    )  # fmt: skip


def certificates(frame: pd.DataFrame) -> str:
    """Certificates of the proven rows: verified, their size, and the checker's time beside the search's."""
    kinds: dict[tuple[Any, ...], list[Row]] = {}
    for row in cells(frame):
        if row.get("certificate"):
            key = (row["tree"], row["variant"], row["n"], row["sparsity"])
            kinds.setdefault(key, []).append(row)
    lines = []
    for (tree, variant, n, sparsity), found in sorted(kinds.items()):
        good = [row for row in found if row["certificate"] == "verified"]
        line = [tree, variant, n, f"{sparsity:.0%}", f"{len(good)} of {len(found)}"]
        if good:
            line += [
                f"{max(row['bytes'] for row in good) / 1e6:.3g}",
                f"{sum(row['search_seconds'] for row in good):.3g}",
                f"{sum(row['check_seconds'] for row in good):.3g}",
                f"{100 * max(row['proven_gap'] for row in good):.4f}",
            ]
        lines.append(line + [None] * (9 - len(line)))
    return markdown(
        ["state", "variant", "n", "pruned", "verified", "largest MB", "search s", "check s", "widest gap %"],
        lines,
    )


def layers(frame: pd.DataFrame) -> str:
    """Whole layers, before and after."""
    found: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in cells(frame):
        if "budget" in row and "row" not in row and row["solver"] in (OURS, "relaxation"):
            key = (row["variant"], row["n"], row["network"], row["layer"], row["budget"])
            found.setdefault(key, {})[row["tree"]] = row
    lines = []
    for key, of in sorted(found.items(), key=lambda item: str(item[0])):
        variant, n, network, layer, budget = key
        size = next(iter(of.values()))["m"]
        asked = ASKED_OF_LAYERS.get((network, budget)) if n > 256 else "half the time"
        line: list[object] = [f"{network}/{layer}", f"{size} x {n}", variant, budget, asked]
        for tree in TREES:
            line += [None, None] if tree not in of else [f"{spent(of[tree]):.3g}", gap(of[tree])]
        lines.append(line)
    return markdown(
        ["layer", "size", "variant", "pruned", "asked", "before: s", "gap %", "after: s", "gap %"], lines
    )


def unreached(frame: pd.DataFrame) -> str:
    """Rows left open at the cap, with where the time went."""
    lines = [
        [
            row["n"], named(row), f"{row['sparsity']:.0%}", row["tree"], f"{spent(row):.3g}", gap(row),
            None if row.get("root") is None else f"{100 * row['root']:.1f}", row["nodes"], row["splits"],
            f"{1e3 * spent(row) / max(row['nodes'], 1):.3g}", f"{row['nodes'] / max(row['splits'], 1):.2f}",
        ]
        for row in sorted(own(frame), key=lambda row: (*place(row), row["tree"]))
        if row["gap"] > GAP and row["solver"] == OURS
    ]  # fmt: skip
    return markdown(
        ["n", "row", "pruned", "state", "s", "gap %", "first gap %", "nodes", "splits", "ms a node",
         "nodes a split"], lines
    )  # fmt: skip


def total(frame: pd.DataFrame) -> str:
    """What the study took, and under which caps."""
    found = cells(frame)
    caps = sorted({(row["limit"], row["clock"]) for row in found})
    told = ", ".join(f"{limit:g} s {'CPU' if clock == 'cpu' else 'wall'}" for limit, clock in caps)
    hours = sum(row["finished"] - row["started"] for row in found) / 3600
    left = len(frame) - len(found)
    return (
        f"{len(found)} cells in {hours:.2f} h of wall time, under caps of {told}; {left} failed or not run."
    )


def cells(frame: pd.DataFrame) -> list[Row]:
    """Parameters of every finished cell, with their defaults, and what was measured."""
    return [
        {
            **DEFAULTS, "started": row["started"], "finished": row["finished"], "status": row["status"],
            "nodes": row["nodes"], "gap": row["gap"], "m": row["m"], "seconds": row["seconds"],
            "value": row["value"], "bound": row["bound"], "cpu_seconds": row["cpu_seconds"],
            **row["parameters"]["parameters"], **row["result"],
        }
        for row in frame[frame["state"] == DONE].to_dict("records")
    ]  # fmt: skip


def own(frame: pd.DataFrame) -> list[Row]:
    """Cells of single joint rows by us."""
    return [
        row for row in cells(frame)
        if "row" in row and row["solver"] in (OURS, "relaxation")
        and row["variant"] == "joint"
    ]  # fmt: skip


def place(row: Row) -> tuple[Any, ...]:
    return (row["n"], row["network"], row["layer"], row["seed"], row["row"], row["sparsity"])


def named(row: Row) -> str:
    seed = f", seed {row['seed']}" if row["seed"] else ""
    return f"{row['network']}/{row['layer']}{seed}, row {row['row']}"


def spent(row: Row) -> float:
    """Seconds of the clock that the cap was on."""
    return float(row["cpu_seconds"] if row["clock"] == "cpu" else row["seconds"])


def gap(row: Row) -> str:
    return "proven" if row["gap"] <= GAP else f"{100 * row['gap']:.2f}"


def geometric(values: Iterable[float]) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(list(values), 1e-4)))))
