"""What functions that make tables end with: lines of cells as Markdown, and curves step by step.

def accuracies(frame):
    rows = cbs.study.frames.records(frame)
    return markdown(["sparsity", "accuracy"], [[row["sparsity"], f"{row['accuracy']:.2%}"] for row in rows])
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


def steps(curve: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """A mapping for every place of lists of equal length by name, as a curve is kept in a cell's results.

    Raises:
        ValueError: for lists of different lengths.
    """
    for values in zip(*curve.values(), strict=True):
        yield dict(zip(curve, values, strict=True))


def markdown(head: Sequence[object], lines: Iterable[Sequence[object]]) -> str:
    """A table.

    Args:
        head: of every column.
        lines: cells of every line, as texts or numbers; None is a dash.

    Raises:
        ValueError: for a line with more or fewer cells than the head.
    """
    text = [_line(head), "|---" * len(head) + "|"]
    for line in lines:
        if len(line) != len(head):
            raise ValueError(
                f"a line has {len(line)} cells where the head has {len(head)}: {list(line)!r:.80}"
            )
        text.append(_line(line))
    return "\n".join(text) + "\n"


def _line(cells: Sequence[object]) -> str:
    texts = ("-" if cell is None else f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in cells)
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"
