"""A progress bar over the epochs of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cbs.schedule.training import Epoch


@contextmanager
def epoch_bar(count: int, shown: bool = True) -> Iterator[Callable[[Epoch], None]]:
    """A bar on standard error that is told of epochs, and is gone at the end; nothing without a terminal.

    Args:
        count: of epochs.
        shown: whether there is a bar at all.
    """
    if not shown:
        yield lambda epoch: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    bar = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total} epochs"), TimeElapsedColumn(),
        console=console, transient=True, disable=not (console.is_terminal or console.is_jupyter),
    )  # fmt: skip

    def tell(epoch: Epoch) -> None:
        held = "" if epoch.validation is None else f", held back {epoch.validation:.4g}"
        bar.update(task, description=f"loss {epoch.loss:.4g}{held}", completed=epoch.index + 1)

    with bar:
        task = bar.add_task("training", total=count)
        yield tell
