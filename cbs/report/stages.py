"""The story of a result that came in stages, as a table: a line for every stage."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from cbs.network.evaluate import Evaluation
from cbs.result import PruneResult, Stage

COLUMNS = (
    "method", "asked", "stage", "sparsity", "loss", "divergence", "accuracy", "objective", "pruning s",
    "refit s", "tuning s",
)  # fmt: skip
"""Loss is that on calibration data, accuracy that on test data or says that it is not; both at the stage's
end. The divergence is from the dense outputs, after the refit; the objective is that of the stage's masks."""


def staged(results: Sequence[PruneResult]) -> list[PruneResult]:
    """The results that came in several stages."""
    return [result for result in results if len(result.history) > 1]


def _columns(results: Sequence[PruneResult]) -> tuple[str, ...]:
    tested = all(result.test_after for result in results)
    return tuple("calib. accuracy" if name == "accuracy" and not tested else name for name in COLUMNS)


def _end(stage: Stage) -> Evaluation | None:
    """Loss and accuracy on calibration data when the stage was over."""
    return stage.tuned or stage.refitted or stage.pruned


def accuracy_of(stage: Stage) -> float | None:
    """On test data, if there is any."""
    found = stage.test_tuned or stage.test_refitted or stage.test_pruned or _end(stage)
    return None if found is None else found.accuracy


def _pruning(stage: Stage) -> float:
    """Seconds without refit and fine-tuning."""
    return stage.seconds - stage.refit_seconds - stage.tuning_seconds


def stage_cells(result: PruneResult) -> list[tuple[str, ...]]:
    """A result's lines, one a stage, in the order of `COLUMNS`."""
    lines: list[tuple[str, ...]] = []
    for number, stage in enumerate(result.history, 1):
        end, accuracy = _end(stage), accuracy_of(stage)
        lines.append(
            (
                result.method,
                f"{100 * result.asked:g}%",
                str(number),
                f"{100 * stage.sparsity:.1f}%",
                "-" if end is None else f"{end.loss:.4f}",
                "-" if stage.refitted_divergence is None else f"{stage.refitted_divergence:.5f}",
                "-" if accuracy is None else f"{100 * accuracy:.2f}%",
                "-" if stage.value is None else f"{stage.value:.4g}",
                f"{_pruning(stage):.2f}",
                f"{stage.refit_seconds:.2f}",
                f"{stage.tuning_seconds:.2f}",
            )
        )
    return lines


def stages_terminal(results: Sequence[PruneResult]) -> Table:
    """The table of stages for a terminal, of results that came in several."""
    table = Table(box=None, pad_edge=False)
    for name in _columns(results):
        left = name in COLUMNS[:1]
        table.add_column(name, justify="left" if left else "right", no_wrap=left, overflow="fold")
    for result in results:
        if table.row_count:
            table.add_row()
        for line in stage_cells(result):
            table.add_row(*line)
    return table


def stages_markdown(results: Sequence[PruneResult]) -> str:
    """The table of stages for a document, GitHub's Markdown."""
    lines: list[tuple[str, ...]] = [_columns(results), ("---", *["---:"] * (len(COLUMNS) - 1))]
    lines += [line for result in results for line in stage_cells(result)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
