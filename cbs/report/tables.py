"""The table of a comparison: one line a method and sparsity, for terminals and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from cbs.result import PruneResult

COLUMNS = ("sparsity", "method", "accuracy", "loss increase", "certified gap", "seconds")
"""Accuracy is that on test data, or says that it is not; the loss increase is that on calibration data."""


def columns(results: Sequence[PruneResult]) -> tuple[str, ...]:
    """`COLUMNS`, with the accuracy named after its data where that is not test data."""
    tested = all(result.test_after for result in results)
    names = {} if tested else {"accuracy": "calib. accuracy"}
    if results:
        names["loss increase"] = results[0].measured.increase
    return tuple(names.get(name, name) for name in COLUMNS)


def cells(result: PruneResult) -> tuple[str, ...]:
    """A result's line, in the order of `COLUMNS`."""
    evaluation = result.test_after or result.after
    accuracy = "-" if evaluation.accuracy is None else f"{100 * evaluation.accuracy:.2f}%"
    gap = "unknown" if result.gap is None else f"{100 * result.gap:.2f}%"
    if result.status == "interrupted":
        gap += " (interrupted)"
    return (
        result.share, result.method, accuracy, f"{result.loss_increase:+.4f}", gap,
        f"{result.seconds:.2f}",
    )  # fmt: skip


def terminal(results: Sequence[PruneResult]) -> Table:
    """The table for a terminal, a rule between sparsities."""
    names = columns(results)
    table = Table(box=None, pad_edge=False)
    table.add_column(names[0], overflow="fold")
    table.add_column(names[1], no_wrap=True)  # names are told apart by how they end
    for name in names[2:]:
        table.add_column(name, justify="right", overflow="fold")
    before = None
    for result in results:
        if before is not None and result.asked != before:
            table.add_section()
            table.add_row()
        before = result.asked
        table.add_row(*cells(result))
    return table


def markdown(results: Sequence[PruneResult]) -> str:
    """The table for a document, GitHub's Markdown."""
    lines = [columns(results), ("---", "---", *["---:"] * (len(COLUMNS) - 2)), *map(cells, results)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
