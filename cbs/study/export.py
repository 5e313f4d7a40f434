"""Exports of a store: Parquet and CSV for others to read, and the arrays beside them."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cbs.names import check_name
from cbs.study.arrays import packed
from cbs.study.cell import canonical
from cbs.study.schema import JSON
from cbs.study.store import Store
from solvers.runtime.writing import check_place, replacing

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("cells", "benchopt")
PRIVATE = ("owner", "heartbeat")
"""Columns that mean nothing once a study is over."""


def export(
    store: Store, path: str | os.PathLike[str], *, form: str = "cells", keys: list[str] | None = None
) -> int:
    """Write a store's cells to a `.parquet` or `.csv` file, whole or not at all.

    Args:
        store: what to export.
        path: where to; an existing file is replaced.
        form: `cells`, a row a cell; or `benchopt`, a row for every point of a trace with benchopt's column
            names.
        keys: of some cells; None for all.

    Returns:
        How many rows were written.

    Raises:
        ValueError: for another ending or format, or a place that can't be written.
        OSError: if the disk is full.
    """
    path = Path(path)
    check_name("format", form, FORMATS)
    if path.suffix not in (".parquet", ".csv"):
        raise ValueError(f"export {str(path)!r} must end in .parquet or .csv")
    check_place("export", path)
    frame = store.frame(keys).drop(columns=list(PRIVATE))
    if form == "benchopt":
        from cbs.study.benchopt import to_benchopt

        frame = to_benchopt(frame, store.arrays)
    else:
        frame = flat(frame)
    with replacing(path) as file:
        if path.suffix == ".csv":
            file.write(frame.to_csv(index=False, lineterminator="\n").encode())
        else:
            made = io.BytesIO()
            try:
                frame.to_parquet(made, index=False)
            except ImportError:
                raise ValueError("Parquet needs pyarrow: pip install pyarrow; or export to .csv") from None
            file.write(made.getvalue())
    return len(frame)


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of cells with its mappings as JSON."""
    frame = frame.copy()
    for name in JSON:
        frame[name] = [canonical(mapping) for mapping in frame[name]]
    return frame


def export_arrays(store: Store, folder: str | os.PathLike[str], keys: list[str] | None = None) -> int:
    """Write every cell's arrays to `FOLDER/KEY.npz`; those that are there are left alone.

    Returns:
        How many files the folder has of these cells.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"folder {str(folder)!r} can't be made ({error.strerror})") from None
    count = 0
    for key in store.frame(keys)["key"]:
        place = folder / f"{re.sub(r'[^0-9a-f]', '', key)}.npz"
        if not place.exists():
            arrays = store.arrays(key)
            if not arrays:
                continue
            with replacing(place) as file:
                file.write(packed(arrays))
        count += 1
    return count
