"""Where a report comes from: a study's store, a table that was exported of one, or the folder of a run."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cbs.report.page.details import Arrays

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".parquet", ".csv")
PAGE = "report.html"


@dataclass(frozen=True)
class Source:
    """Cells and their arrays.

    Attributes:
        frame: a row a cell.
        arrays: gives the arrays of a cell by its key, or None where there are none.
        page: where its page goes by default.
        title: of the page, or None for the study's name.
        facts: names and values that the summary begins with.
    """

    frame: pd.DataFrame
    arrays: Arrays | None
    page: Path
    title: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def read(
    place: str | os.PathLike[str], *, arrays: str | os.PathLike[str] | None = None, study: str | None = None
) -> Iterator[Source]:
    """Open what a report is to be of.

    Args:
        place: a study's file, whose store is meant; a store by path or URL; a `.parquet` or `.csv` file of
            `cbs study export`; or the folder of a `cbs prune` run.
        arrays: of an exported table, the folder with `KEY.npz` files; by default the one beside the table
            that is named after it, with `-arrays`, if it is there.
        study: of a store, the one study whose cells are wanted; None for all.

    Raises:
        ValueError: in one line, if it can't be read or is something else.
    """
    text, title = os.fspath(place), None
    if "://" not in text and text.endswith(".toml"):
        from cbs.study import Study

        asked = Study.load(text)
        text, study, title = asked.store, study or asked.name, asked.top["title"]
    path = Path(text)
    is_run, is_table = "://" not in text and path.is_dir(), "://" not in text and path.suffix in TABLES
    if arrays is not None and not is_table:
        raise ValueError(f"arrays belong to an exported table (.parquet, .csv); {text!r} has its own")
    if study is not None and is_run:
        raise ValueError(f"study {study!r}: {text!r} is the folder of a run, which has no studies")
    if is_run:
        from cbs.report.page.run import of_run

        yield of_run(path)
    elif is_table:
        from cbs.study import read as read_table

        frame = read_table(path)
        if study is not None:
            frame = _of_study(frame, study, sorted(set(map(str, frame.get("study", ())))))
        yield Source(frame, _folder(path, arrays), path.with_suffix(".html"))
    else:
        from cbs.study import Store

        with Store.open(text) as store:
            keys = None
            if study is not None:
                known = store.studies()
                if study not in known:
                    _of_study(None, study, list(known))
                keys = store.members(study)
            page = Path("report.html") if "://" in text else path.with_suffix(".html")
            yield Source(store.frame(keys), store.arrays, page, title or study)


def _of_study(frame: Any, study: str, known: list[str]) -> Any:
    from cbs.names import unknown

    if study not in known:
        raise ValueError(unknown("study", study, known))
    return frame[frame["study"] == study]


def _folder(table: Path, arrays: str | os.PathLike[str] | None) -> Arrays | None:
    """The arrays of an exported table, read when they are asked for."""
    folder = table.with_name(f"{table.stem}-arrays") if arrays is None else Path(arrays)
    if not folder.is_dir():
        if arrays is not None:
            raise ValueError(f"arrays {str(folder)!r} is no folder; give the one with the KEY.npz files")
        return None

    def found(key: str) -> dict[str, NDArray[Any]]:
        file = folder / f"{key}.npz"
        if os.sep in key or not file.is_file():
            return {}
        try:
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"{file.name} is no archive of arrays ({error})") from None

    return found
