"""The story of a result that came in stages, as a table: a line for every stage."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from cbs.history import Stage
from cbs.result import PruneResult

COLUMNS = (
    "method", "stage", "sparsity", "loss", "divergence", "accuracy", "objective", "prune s", "refit s",
    "tune s",
)  # fmt: skip
"""Loss is that on calibration data, accuracy that on test data or says that it is not; both at the stage's
end. The divergence is from the dense outputs, after the refit; the objective is that of the stage's masks."""
WIDE = ("objective",)
"""What a terminal has no room for."""
NONE = "-"


def staged(results: Sequence[PruneResult]) -> list[PruneResult]:
    """The results that came in several stages."""
    return [result for result in results if len(result.history) > 1]


def accuracy_of(stage: Stage) -> float | None:
    """At the stage's end: on test data, if there is any."""
    found = stage.test_end or stage.end
    return None if found is None else found.accuracy


def stage_cells(result: PruneResult) -> list[tuple[str, ...]]:
    """A result's lines, one a stage, in the order of `COLUMNS`."""
    lines: list[tuple[str, ...]] = []
    for number, stage in enumerate(result.history, 1):
        end, accuracy, divergence = stage.end, accuracy_of(stage), stage.refitted_divergence
        line = (
            f"{result.method} {100 * result.asked:g}%", str(number), f"{100 * stage.sparsity:.1f}%",
            NONE if end is None else f"{end.loss:.4f}", NONE if divergence is None else f"{divergence:.5f}",
            NONE if accuracy is None else f"{100 * accuracy:.2f}%",
            NONE if stage.value is None else f"{stage.value:.4g}", f"{stage.pruning_seconds:.2f}",
            f"{stage.refit_seconds:.2f}" if stage.refit_seconds else NONE,
            f"{stage.tuning_seconds:.2f}" if stage.tuning_seconds else NONE,
        )  # fmt: skip
        lines.append(line)
    return lines


def _table(results: Sequence[PruneResult], skip: Sequence[str] = ()) -> list[list[tuple[str, ...]]]:
    """The head, and the lines of every result, without columns that have nothing to say."""
    blocks = [stage_cells(result) for result in results]
    told = [i for i, name in enumerate(COLUMNS) if name not in skip]
    told = [i for i in told if any(line[i] != NONE for lines in blocks for line in lines)]
    tested = all(result.test_after for result in results)
    names = ["calib. accuracy" if name == "accuracy" and not tested else name for name in COLUMNS]
    return [[tuple(line[i] for i in told) for line in lines] for lines in [[tuple(names)], *blocks]]


def stages_terminal(results: Sequence[PruneResult]) -> Table:
    """The table of stages for a terminal, of results that came in several."""
    (head,), *blocks = _table(results, WIDE)
    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(head):
        table.add_column(name, justify="right" if place else "left", no_wrap=not place, overflow="fold")
    for lines in blocks:
        if table.row_count:
            table.add_row()
        for line in lines:
            table.add_row(*line)
    return table


def stages_markdown(results: Sequence[PruneResult]) -> str:
    """The table of stages for a document, GitHub's Markdown."""
    (head,), *blocks = _table(results)
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *(line for lines in blocks for line in lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
