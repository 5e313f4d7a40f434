"""Tables of the documents from the study's cells: some methods, all of them, and one."""

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from cbs.study.frames import records

SHOWN = 0.75
"""Sparsity in the README of the repository, and the methods that it has."""
SOME = ("magnitude", "obd", "obs", "woodfisher", "wanda", "cbs", "sparsegpt", "alps", "obc", "joint")
HEAD = [
    "| sparsity | method | accuracy | loss increase | certified gap | seconds |",
    "| --- | --- | ---: | ---: | ---: | ---: |",
]
Row = dict[str, Any]


def some(frame: pd.DataFrame) -> str:
    """`SOME` at sparsity `SHOWN`."""
    rows = held(frame)
    chosen = [row for name in SOME for row in rows if row["solver"] == name and row["sparsity"] == SHOWN]
    return "\n".join([*dense(rows), *HEAD, *map(line, chosen)])


def every(frame: pd.DataFrame) -> str:
    """All of them, sparsity by sparsity."""
    return "\n".join([*HEAD, *map(line, held(frame))])


def one(frame: pd.DataFrame, method: str) -> str:
    """A method at every sparsity, held against what all prove."""
    rows = [row for row in held(frame) if row["solver"] == method]
    return "\n".join([*dense(rows), *HEAD, *map(line, rows)])


def held(frame: pd.DataFrame) -> list[Row]:
    """The cells, sparsity by sparsity, each with the best bound that any method proves of its budget.

    Shares of neurons are another budget, whose methods have the bounds that they prove.
    """
    rows = sorted(records(frame), key=lambda row: row["sparsity"])
    best: dict[float, float] = {}
    for row in rows:
        if known(row["bound"]) and not of_neurons(row):
            best[row["sparsity"]] = max(row["bound"], best.get(row["sparsity"], -math.inf))
    return [row if of_neurons(row) else {**row, "bound": best.get(row["sparsity"])} for row in rows]


def of_neurons(row: Row) -> bool:
    """Whether a method prunes a share of the neurons."""
    return "neurons" in row["share"]


def known(number: float | None) -> bool:
    """Whether there is one: none is NaN in a frame."""
    return number is not None and math.isfinite(number)


def dense(rows: Iterable[Row]) -> list[str]:
    """What the network does before."""
    return [*(f"Dense accuracy {100 * row['dense_accuracy']:.2f}%." for row in list(rows)[:1]), ""]


def line(row: Row) -> str:
    """A method at a sparsity."""
    gap = "unknown"
    if known(row["bound"]):
        low = min(row["bound"], row["value"])
        gap = f"{100 * ((row['value'] - low) / row['value'] if row['value'] else 0.0):.2f}%"
    return (
        f"| {row['share']} | {row['solver']} | {100 * row['accuracy']:.2f}% | {row['loss_increase']:+.4f} "
        f"| {gap} | {row['seconds']:.2f} |"
    )
