"""Cells as a table (pandas), from a store or from what was exported of one."""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbs.study.schema import DONE, JSON, typed
from cbs.study.store import Store

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".parquet", ".csv")
"""Of exported tables."""
NEEDED = ("key", "kind", "instance", "solver", "state")
"""Columns without which a table is not one of cells."""


def read(place: str | os.PathLike[str]) -> pd.DataFrame:
    """The cells of a store, by path or URL, or of a Parquet or CSV file that `cbs study export` wrote.

    Returns:
        A row a cell, with the columns that docs/study.md lists; `options`, `parameters` and `result` are
        mappings.

    Raises:
        ValueError: in one line, if it can't be read or is something else.
    """
    text = os.fspath(place)
    if "://" in text or not text.endswith(SUFFIXES):
        with Store.open(text) as store:
            return store.frame()
    import pandas as pd

    path = Path(text)
    try:
        frame = (
            pd.read_parquet(path)
            if path.suffix == ".parquet"
            else pd.read_csv(path, dtype=str)  # whose numbers would not all be the nearest ones
        )
    except ImportError:
        raise ValueError(
            f"table {text!r} needs pyarrow: pip install pyarrow; or export the store as .csv"
        ) from None
    except OSError as error:
        raise ValueError(
            f"table {text!r} can't be read ({error.strerror or ' '.join(str(error).split())})"
        ) from None
    except Exception as error:  # pyarrow and pandas raise many classes for bytes that are no table
        raise ValueError(f"table {text!r} can't be read ({' '.join(str(error).split()):.120})") from None
    if lacking := [name for name in NEEDED if name not in frame]:
        raise ValueError(
            f"table {text!r} has no column {lacking[0]!r}; give one that `cbs study export` wrote"
        )
    for name in JSON:
        texts = frame[name] if name in frame else ["{}"] * len(frame)
        try:
            frame[name] = [json.loads(told) if isinstance(told, str) and told else {} for told in texts]
        except ValueError as error:
            raise ValueError(f"table {text!r}: column {name!r} does not hold JSON ({error})") from None
    try:
        return typed(frame)
    except (TypeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"table {text!r} has other values than cells have ({why:.120})") from None


def columns_of(frame: pd.DataFrame) -> list[str]:
    """What a table of cells can be asked for: its columns, and `result.NAME` and so on of its mappings."""
    inner = {f"{name}.{key}": None for name in JSON for mapping in frame[name] for key in mapping}
    nested = {
        f"parameters.{key}": None
        for mapping in frame["parameters"]
        for key in (mapping.get("parameters") or {} if isinstance(mapping.get("parameters"), dict) else {})
    }
    return [*frame.columns, *inner, *nested]


def column(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column, or an entry of the mappings of one, as `result.dense_accuracy` or `parameters.rows`.

    Of a call cell the function's own parameters are meant.

    Raises:
        ValueError: with the nearest name, if there is none.
    """
    import pandas as pd

    if name in frame:
        return frame[name]
    head, dot, key = name.partition(".")
    if dot and head in JSON:
        known = columns_of(frame)
        if name in known:
            mappings = [
                {**mapping, **inner} if isinstance(inner := mapping.get("parameters"), dict) else mapping
                for mapping in frame[head]
            ]
            return pd.Series([mapping.get(key) for mapping in mappings], index=frame.index, name=name)
    from cbs.names import unknown

    raise ValueError(unknown("column", name, columns_of(frame)))


def chosen(frame: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
    """The cells whose columns have one of the values that are wanted.

    Args:
        frame: of cells.
        where: for every column, see `column`, a value or a list of them; texts may be patterns, as `digits*`.

    Raises:
        ValueError: with the nearest name, for a column that is not there.
    """
    for name, wanted in where.items():
        values = wanted if isinstance(wanted, list) else [wanted]
        frame = frame[[_meets(value, values) for value in column(frame, name)]]
    return frame


def _meets(value: Any, wanted: list[Any]) -> bool:
    import pandas as pd

    if value is pd.NA:
        return False
    return any(
        fnmatch.fnmatchcase(value, one) if isinstance(one, str) and isinstance(value, str) else value == one
        for one in wanted
    )


def exploded(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """A row for every entry of a list that cells have in their results, whose mappings become columns.

    Args:
        frame: of cells.
        name: of the list in `result`, of mappings.
    """
    import pandas as pd

    rows = []
    for _, row in frame.iterrows():
        rows += [{**row.to_dict(), **entry} for entry in row["result"].get(name, ())]
    return pd.DataFrame(rows)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Every finished cell as one mapping, for functions that make tables.

    Args:
        frame: of cells.

    Returns:
        Its columns; over them a called function's parameters, and over these what is in `result`.
    """
    return [
        {**row, **(row["parameters"].get("parameters") or {}), **row["result"]}
        for row in frame[frame["state"] == DONE].to_dict("records")
    ]
