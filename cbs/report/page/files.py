"""The figures of a report as files: PNG by a headless browser (Kaleido), and the data behind them as CSV."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbs.report.page.embed import plain
from cbs.report.page.figure import Figure
from cbs.report.page.style import text, themed
from solvers.runtime.writing import replacing

if TYPE_CHECKING:
    import pandas as pd

WIDTH, SCALE, TITLE = 1000, 2, 50
"""Pixels of a picture's width, before it is made so many times as fine; and those of its title."""


def write_figures(
    figures: Sequence[Figure], folder: str | os.PathLike[str], *, png: bool = True
) -> str | None:
    """Write every figure as `NAME.png`, its data as `NAME.csv`, and its table as `NAME-summary.csv`.

    Args:
        figures: of a report.
        folder: is made if it is not there.
        png: draw the pictures as well; the tables need no browser.

    Returns:
        Why there are no pictures, in one line, or None.

    Raises:
        OSError: if a file can't be written.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        _keep(place / f"{figure.name}.csv", as_csv(figure.table).encode())
        if figure.summary is not None:
            _keep(place / f"{figure.name}-summary.csv", as_csv(figure.summary).encode())
    drawn = [figure for figure in figures if figure.spec is not None]
    if not png or not drawn:
        return None
    try:
        pictures = draw([(figure.spec or {}, figure.height, figure.title) for figure in drawn])
    except ModuleNotFoundError:
        return "no PNG files: they need kaleido, pip install 'combinatorial-brain-surgeon[figures]'"
    except Exception as error:  # a browser fails in ways of its own
        reason = " ".join(str(error.args[0] if error.args else type(error).__name__).split())
        return f"no PNG files: they need a browser such as chromium ({reason.rstrip('.'):.200})"
    for figure, picture in zip(drawn, pictures, strict=True):
        _keep(place / f"{figure.name}.png", picture)
    return None


def draw(specs: Sequence[tuple[dict[str, Any], int, str]]) -> list[bytes]:
    """Figures as PNG, by one browser for all of them."""
    import asyncio

    import kaleido

    for name in ("kaleido", "choreographer"):  # they tell of every tab
        logging.getLogger(name).setLevel(logging.CRITICAL)

    async def drawn() -> list[bytes]:
        async with kaleido.Kaleido(n=1) as browser:
            return [
                await browser.calc_fig(picture(*spec), opts={"format": "png", "scale": SCALE})
                for spec in specs
            ]  # fmt: skip

    return asyncio.run(drawn())


def picture(spec: dict[str, Any], height: int, title: str) -> dict[str, Any]:
    """A figure with its title, in light colours and of fixed size."""
    layout = themed(plain(spec["layout"]), "light")
    top = layout["margin"]["t"]
    plot = height - 70 - top
    below = max(layout["margin"]["b"], _legend(spec))
    return {
        "data": plain(spec["data"]),
        "layout": {
            **layout,
            "width": WIDTH,
            "height": plot + top + TITLE + below,
            "margin": {**layout["margin"], "t": top + TITLE, "b": below},
            "legend": {**layout.get("legend", {}), "y": -62 / plot},
            "title": {
                "text": text(title),
                "x": 0.02,
                "xanchor": "left",
                "yref": "container",
                "y": 0.98,
                "yanchor": "top",
            },
        },
    }


def _legend(spec: dict[str, Any]) -> int:
    """Pixels that the legend below needs; the page's script reckons alike."""
    names = [t["name"] for t in spec["data"] if t.get("name") and t.get("showlegend", True)]
    if len(names) < 2 or not spec["layout"].get("showlegend", True):
        return 0
    columns = max(1, (WIDTH - 90) // (48 + 7 * max(map(len, names))))
    return int(74 + 20 * -(-len(names) // columns))


def as_csv(frame: pd.DataFrame) -> str:
    """A table as the page's button gives it (RFC 4180): what is not finite is empty."""
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow([str(name) for name in frame.columns])
    for row in frame.itertuples(index=False):
        writer.writerow(["" if (value := plain(item)) is None else value for item in row])
    return lines.getvalue()


def _keep(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)
