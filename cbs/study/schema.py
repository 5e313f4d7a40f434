"""The tables of a study's store, and what their columns hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sql

from cbs.study.cell import written

if TYPE_CHECKING:
    import pandas as pd

LAYOUT = 1
"""Of the tables, which counts up when an older program can't read them any more."""
PLANNED, RUNNING, DONE, FAILED = "planned", "running", "done", "failed"
STATES = (PLANNED, RUNNING, DONE, FAILED)
TABLES = sql.MetaData()
META = sql.Table(
    "meta", TABLES, sql.Column("name", sql.String(64), primary_key=True), sql.Column("value", sql.Text)
)
MEMBERS = sql.Table(
    "members", TABLES, sql.Column("study", sql.String(200), primary_key=True),
    sql.Column("key", sql.String(64), primary_key=True), sql.Column("place", sql.Integer, nullable=False),
)  # fmt: skip
"""Which cells each study asks for, and in which order; a cell may be of several studies."""
CELLS = sql.Table(
    "cells", TABLES,
    sql.Column("key", sql.String(64), primary_key=True),
    *(sql.Column(name, sql.Text, index=name == "digest")
      for name in ("study", "kind", "instance", "digest", "family")),
    *(sql.Column(name, sql.Integer) for name in ("m", "n")),
    *(sql.Column(name, sql.Text) for name in ("variant", "budget")),
    sql.Column("sparsity", sql.Double),
    *(sql.Column(name, sql.Text) for name in ("solver", "options")),
    *(sql.Column(name, sql.Double) for name in ("time_limit", "gap_asked")),
    sql.Column("seed", sql.BigInteger),
    *(sql.Column(name, sql.Text) for name in ("parameters", "version", "revision", "machine")),
    sql.Column("state", sql.String(8), nullable=False, index=True),
    sql.Column("owner", sql.Text),
    sql.Column("heartbeat", sql.Double),
    sql.Column("attempts", sql.Integer, nullable=False),
    sql.Column("error", sql.Text),
    *(sql.Column(name, sql.Double) for name in ("started", "finished")),
    *(sql.Column(name, sql.Text) for name in ("host", "status")),
    *(sql.Column(name, sql.Double) for name in ("value", "bound", "gap", "seconds", "cpu_seconds", "memory")),
    sql.Column("nodes", sql.BigInteger),
    *(sql.Column(name, sql.Double) for name in ("accuracy", "loss")),
    sql.Column("certified", sql.Boolean),
    sql.Column("result", sql.Text),
    sql.Column("arrays", sql.LargeBinary),
)  # fmt: skip
"""Infinite numbers are stored as they are; a column that a cell has nothing for is null."""
JSON = ("options", "parameters", "result")
COLUMNS = tuple(column.name for column in CELLS.columns)
RESULTS = (
    "status", "value", "bound", "gap", "seconds", "cpu_seconds", "memory", "nodes", "accuracy", "loss",
    "certified",
)  # fmt: skip
FACTS = ("family", "m", "n", "variant", "budget", "sparsity")
WORDS = ("status", "family", "variant", "budget")
"""Columns of text among results and facts."""
CLEAN = dict.fromkeys(("owner", "heartbeat", "error", "started", "finished", "host", "arrays", *RESULTS)) | {
    "result": "{}"
}
"""What a cell has that has not been run."""


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of cells whose columns have the types that the store's have, whatever a file made of them."""
    import pandas as pd

    for column in CELLS.columns:
        if column.name not in frame:
            continue
        if isinstance(column.type, sql.Double):
            frame[column.name] = frame[column.name].astype(float)
        elif isinstance(column.type, sql.Integer):
            frame[column.name] = pd.to_numeric(frame[column.name]).astype("Int64")
        elif isinstance(column.type, sql.Boolean):
            found = frame[column.name].astype(object)
            frame[column.name] = found.replace({"True": True, "False": False}).astype("boolean")
        elif column.name in ("digest", "revision"):
            frame[column.name] = frame[column.name].astype(object).fillna("").astype(str)
    return frame


def fitting(name: str, value: Any) -> Any:
    """A value for its column.

    Raises:
        ValueError: for a number of more digits than the column has.
    """
    kind = CELLS.c[name].type
    if isinstance(value, str):
        return written(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(kind, sql.Integer):
        most = 2 ** (63 if isinstance(kind, sql.BigInteger) else 31)
        if not -most <= value < most:
            raise ValueError(f"{name} must be a whole number below {most}, got {value!r:.60}")
        return value
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number below 1e308, got {value!r:.60}") from None


def fits(name: str, value: Any) -> bool:
    """Whether a value is of the kind of a column: a text, true or false, a whole number or a number."""
    if name in WORDS:
        return isinstance(value, str)
    if name == "certified" or isinstance(value, bool):
        return name == "certified" and isinstance(value, bool)
    whole = name in ("m", "n", "nodes")
    if name in ("m", "n") and not (isinstance(value, int | float) and abs(value) < 2**31):
        return False
    return isinstance(value, int) or (isinstance(value, float) and (not whole or value.is_integer()))


def entry(name: str, value: Any) -> Any:
    """A value for a column of the table.

    Raises:
        TypeError: in one line, if it is not of the column's kind.
    """
    if value is not None and not fits(name, value):
        raise TypeError(
            f"{name!r} is a column of the table, whose values can't be {value!r:.60}; call it otherwise"
        )
    return int(value) if name in ("m", "n", "nodes") and value is not None else value
