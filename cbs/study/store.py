"""The store of a study: one table of cells in SQLite, or in any database that SQLAlchemy speaks to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import sqlalchemy as sql
from numpy.typing import NDArray
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)

from cbs.study.arrays import packed, unpacked
from cbs.study.cell import Answer, Cell, canonical, written

if TYPE_CHECKING:
    import pandas as pd

LAYOUT = 1
"""Of the tables, which counts up when an older program can't read them any more."""
PLANNED, RUNNING, DONE, FAILED = "planned", "running", "done", "failed"
STATES = (PLANNED, RUNNING, DONE, FAILED)
CONNECT = 5
"""Seconds after which a database that does not answer is unreachable."""
MAKING = 1936421221
"""Number of the lock that PostgreSQL holds while tables are made."""
LARGEST = 900_000_000
"""Bytes of a cell's arrays, packed, that databases take."""
BUSY = 30
"""Seconds that SQLite waits for another process's lock."""
_TABLES = sql.MetaData()
META = sql.Table(
    "meta", _TABLES, sql.Column("name", sql.String(64), primary_key=True), sql.Column("value", sql.Text)
)
MEMBERS = sql.Table(
    "members", _TABLES, sql.Column("study", sql.String(200), primary_key=True),
    sql.Column("key", sql.String(64), primary_key=True), sql.Column("place", sql.Integer, nullable=False),
)  # fmt: skip
"""Which cells each study asks for, and in which order; a cell may be of several studies."""
CELLS = sql.Table(
    "cells", _TABLES,
    sql.Column("key", sql.String(64), primary_key=True),
    *(sql.Column(name, sql.Text, index=name == "digest") for name in ("study", "kind", "instance", "digest",
    "family")),
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
_CLEAN = dict.fromkeys(("owner", "heartbeat", "error", "started", "finished", "host", "arrays", *RESULTS)) | {
    "result": "{}"
}


class Full(OSError):
    """The disk, or the database's room, is full."""


class Away(ValueError):
    """The database can't be used for now: another process's lock, or a server that is gone for a while."""


class Unfit(ValueError):
    """An answer that the table can't hold, such as a number of more digits than its column."""


class Store:
    """Cells in a database. One process writes: the driver. Everybody may read at any time.

    Use `open`; a store is a context manager, which closes its connections.

    Attributes:
        name: path or URL without a password, as messages tell it.
    """

    def __init__(self, engine: sql.Engine, name: str) -> None:
        self.name, self._engine = name, engine

    @classmethod
    def open(cls, place: str | os.PathLike[str], *, create: bool = False) -> Store:
        """Open a store.

        Args:
            place: path of an SQLite file, or a URL of SQLAlchemy, as `postgresql+psycopg://host/database`.
            create: make the file, or the tables, where there are none.

        Raises:
            ValueError: in one line, if it can't be reached, is no store, or is a newer program's.
        """
        text = os.fspath(place)
        (url, path), name = _url(text), named(text)
        if path is not None:
            if not path.exists() and not create:
                raise ValueError(
                    f"store {name!r} is not there; give the file that `cbs study run` wrote, or a URL"
                )
            if path.exists() and not path.is_file():
                raise ValueError(f"store {name!r} is no file; give the path of an SQLite file, or a URL")
            if not path.parent.is_dir():
                raise ValueError(f"store {name!r} can't be made: {str(path.parent)!r} is no folder")
            if not create and not os.access(path.parent, os.W_OK):
                url = _unwritable(path)
        store = cls(_engine(url, name), name)
        try:
            store._check(create)
        except BaseException:
            store.close()
            raise
        return store

    def _check(self, create: bool) -> None:
        with self._told("can't be opened"):
            tables = set(sql.inspect(self._engine).get_table_names())
            if not {"meta", "cells"} <= tables:
                if (tables and not create) or {"meta", "cells"} & tables:
                    raise ValueError(f"store {self.name!r} holds other tables; it is no store of a study")
                if not create:
                    raise ValueError(f"store {self.name!r} is empty; `cbs study run` fills it")
                self._make()
            with self._engine.connect() as connection:
                found = connection.scalar(sql.select(META.c.value).where(META.c.name == "layout"))
        if found is None or not str(found).isdigit():
            raise ValueError(f"store {self.name!r} does not say its layout; it is no store of a study")
        if int(found) > LAYOUT:
            raise ValueError(
                f"store {self.name!r} was written by a newer version (layout {found}, this one reads up to "
                f"{LAYOUT}); update the package"
            )

    def _make(self) -> None:
        """Make the tables, all or none of them, unless another process does just now."""
        with self._engine.begin() as connection:
            if self._engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            elif self._engine.dialect.name == "postgresql":
                connection.execute(sql.select(sql.func.pg_advisory_xact_lock(sql.literal(MAKING))))
            _TABLES.create_all(connection)
            if connection.scalar(sql.select(META.c.value).where(META.c.name == "layout")) is None:
                connection.execute(META.insert().values(name="layout", value=str(LAYOUT)))

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Database errors in one line: `Full`, `Away` if it may be better soon, `Unfit`, else ValueError."""
        try:
            yield
        except SQLAlchemyError as error:
            why = " ".join(str(getattr(error, "orig", None) or error).split()) or type(error).__name__
            if isinstance(error, DataError):
                raise Unfit(f"store {self.name!r} can't hold it ({why:.200})") from None
            if "disk is full" in why or "No space left" in why or "could not extend file" in why:
                raise Full(f"store {self.name!r}: the disk is full") from None
            remote = self._engine.dialect.name != "sqlite"
            soon = (remote and isinstance(error, OperationalError | InterfaceError)) or "is locked" in why
            raise (Away if soon else ValueError)(f"store {self.name!r} {what} ({why:.200})") from None

    def plan(
        self,
        cells: Sequence[Cell],
        *,
        study: str,
        version: str,
        machine: str,
        revision: str = "",
        whole: bool = True,
    ) -> tuple[list[str], int]:
        """Put in the cells that are not there yet, as planned, and note which ones the study is made of.

        Args:
            cells: of the study, in the order in which they shall run.
            study: its name, kept with the cells that are new.
            version: see `Cell.identity`.
            machine: see `Cell.identity`.
            revision: of the code, which is kept but does not identify a cell.
            whole: whether these are all of the study, and not some that are to be run before the others.

        Returns:
            Their keys, in order; and how many are new.
        """
        rows: dict[str, dict[str, Any]] = {}
        for cell in cells:
            row = {
                "key": cell.key(version, machine), "study": study, "kind": cell.kind,
                "instance": cell.instance, "digest": cell.digest, **dict.fromkeys(FACTS),
                **{name: cell.facts.get(name) for name in FACTS}, "solver": cell.solver,
                "options": canonical(cell.options), "time_limit": cell.time_limit, "gap_asked": cell.gap,
                "seed": cell.seed, "parameters": canonical(cell.parameters), "version": version,
                "revision": revision, "machine": machine, "state": PLANNED, "attempts": 0, **_CLEAN,
            }  # fmt: skip
            for name in ("study", "instance", "solver", "seed", *FACTS):
                row[name] = _fitting(name, row[name])
            rows.setdefault(str(row["key"]), row)
        with self._told("can't be written"), self._engine.begin() as connection:
            there: set[str] = set()
            for part in _parts(list(rows)):
                there.update(connection.scalars(sql.select(CELLS.c.key).where(CELLS.c.key.in_(part))))
            new = [row for key, row in rows.items() if key not in there]
            for some in _parts(new):
                connection.execute(CELLS.insert(), some)
            if whole:
                connection.execute(MEMBERS.delete().where(MEMBERS.c.study == study))
                known: set[str] = set()
            else:
                known = set(connection.scalars(sql.select(MEMBERS.c.key).where(MEMBERS.c.study == study)))
            for some in _parts(
                [
                    {"study": study, "key": key, "place": i}
                    for i, key in enumerate(rows, len(known))
                    if key not in known
                ]
            ):
                connection.execute(MEMBERS.insert(), some)
        return list(rows), len(new)

    def studies(self) -> dict[str, int]:
        """Names of the studies that the store knows, and how many cells each is made of."""
        query = (
            sql.select(MEMBERS.c.study, sql.func.count()).group_by(MEMBERS.c.study).order_by(MEMBERS.c.study)
        )
        with self._told("can't be read"), self._engine.connect() as connection:
            return {str(study): int(count) for study, count in connection.execute(query)}

    def members(self, study: str) -> list[str]:
        """The keys of a study's cells, in its order; none of a study that the store does not know."""
        query = sql.select(MEMBERS.c.key).where(MEMBERS.c.study == study).order_by(MEMBERS.c.place)
        with self._told("can't be read"), self._engine.connect() as connection:
            return [str(key) for key in connection.scalars(query)]

    def states(
        self, keys: Sequence[str] | None = None
    ) -> dict[str, tuple[str, str | None, float | None, int]]:
        """State, owner, heartbeat and attempts of cells, by key.

        Args:
            keys: of some; None for all.
        """
        wanted = sql.select(CELLS.c.key, CELLS.c.state, CELLS.c.owner, CELLS.c.heartbeat, CELLS.c.attempts)
        found: dict[str, tuple[str, str | None, float | None, int]] = {}
        with self._told("can't be read"), self._engine.connect() as connection:
            for part in [None] if keys is None else _parts(list(keys)):
                query = wanted if part is None else wanted.where(CELLS.c.key.in_(part))
                for key, state, owner, heartbeat, attempts in connection.execute(query):
                    found[key] = (state, owner, heartbeat, attempts)
        return found

    def claim(self, key: str, owner: str) -> bool:
        """Take a planned cell to run it; False if another took it before."""
        now = time.time()
        with self._told("can't be written"), self._engine.begin() as connection:
            done = connection.execute(
                CELLS.update()
                .where(CELLS.c.key == key, CELLS.c.state == PLANNED)
                .values(
                    state=RUNNING, owner=owner, heartbeat=now, started=now, error=None,
                    attempts=CELLS.c.attempts + 1,
                )
            )  # fmt: skip
        return done.rowcount == 1

    def beat(self, owner: str) -> None:
        """Say that the cells that an owner runs are still run."""
        with self._told("can't be written"), self._engine.begin() as connection:
            connection.execute(
                CELLS.update()
                .where(CELLS.c.owner == owner, CELLS.c.state == RUNNING)
                .values(heartbeat=time.time())
            )

    def finish(self, key: str, owner: str, answer: Answer, host: str) -> bool:
        """Keep a cell's answer; False, and nothing changed, if the cell is not this owner's any more.

        Raises:
            Unfit: in one line, for an answer that the table can't hold.
        """
        known = {name: value for name, value in answer.columns.items() if name in (*RESULTS, *FACTS)}
        try:
            values = {name: _fitting(name, _plain(value)) for name, value in known.items()}
            values |= {"result": canonical(answer.result), "arrays": packed(answer.arrays) or None}
        except (TypeError, ValueError, RecursionError) as error:
            raise Unfit(" ".join(str(error).split()) or type(error).__name__) from None
        if (size := len(values["arrays"] or b"")) > LARGEST:
            raise Unfit(f"its arrays take {size / 1e6:.0f} MB, more than a store's {LARGEST / 1e6:.0f} MB")
        return self._end(key, owner, DONE, {**values, "host": host, "error": None})

    def fail(self, key: str, owner: str, error: str, host: str = "") -> bool:
        """Keep why a cell failed."""
        return self._end(key, owner, FAILED, {"error": written(error), "host": host})

    def release(self, key: str, owner: str | None, error: str | None = None) -> bool:
        """Put a cell back among the planned: its work was interrupted or lost."""
        return self._end(
            key, owner, PLANNED, {"owner": None, "heartbeat": None, "error": error and written(error)}
        )

    def _end(self, key: str, owner: str | None, state: str, values: Mapping[str, Any]) -> bool:
        with self._told("can't be written"), self._engine.begin() as connection:
            done = connection.execute(
                CELLS.update()
                .where(CELLS.c.key == key, CELLS.c.state == RUNNING, CELLS.c.owner == owner)
                .values(state=state, finished=None if state == PLANNED else time.time(), **values)
            )
        return done.rowcount == 1

    def retry(self, keys: Iterable[str] | None = None, states: Sequence[str] = (FAILED,)) -> int:
        """Plan cells again.

        Args:
            keys: of some; None for all.
            states: those in these states.

        Returns:
            How many they are.
        """
        count = 0
        with self._told("can't be written"), self._engine.begin() as connection:
            for part in [None] if keys is None else _parts(list(keys)):
                query = CELLS.update().where(CELLS.c.state.in_(states))
                if part is not None:
                    query = query.where(CELLS.c.key.in_(part))
                count += connection.execute(query.values(state=PLANNED, attempts=0, **_CLEAN)).rowcount
        return count

    def take_in(self, frame: pd.DataFrame) -> int:
        """Take the results of an exported table for those cells that are planned here; arrays are not in it.

        Args:
            frame: see `cbs.study.read`.

        Returns:
            How many cells are done by that.
        """
        import pandas as pd

        names = ("host", "started", "finished", "revision", "attempts", *RESULTS, *FACTS)
        count = 0
        with self._told("can't be written"), self._engine.begin() as connection:
            for row in frame[frame["state"] == DONE].to_dict("records"):
                values = {name: _plain(row[name]) for name in names if name in row and not pd.isna(row[name])}
                taken = connection.execute(
                    CELLS.update()
                    .where(CELLS.c.key == row["key"], CELLS.c.state == PLANNED)
                    .values(**values, state=DONE, error=None, result=canonical(row["result"]))
                )
                count += taken.rowcount
        return count

    def counts(self) -> dict[str, int]:
        """How many cells are in each state."""
        query = sql.select(CELLS.c.state, sql.func.count()).group_by(CELLS.c.state)
        with self._told("can't be read"), self._engine.connect() as connection:
            found = {str(state): int(count) for state, count in connection.execute(query)}
        return {state: found.get(state, 0) for state in STATES}

    def frame(self, keys: Sequence[str] | None = None) -> pd.DataFrame:
        """The cells as a table, without arrays; options, parameters and results as mappings.

        Args:
            keys: of some, which gives their order; None for all.
        """
        import pandas as pd

        columns = [column for column in CELLS.columns if column.name != "arrays"]
        query = sql.select(*columns).order_by(CELLS.c.study, CELLS.c.instance, CELLS.c.solver, CELLS.c.key)
        with self._told("can't be read"), self._engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(query)]
        frame = pd.DataFrame(rows, columns=[column.name for column in columns])
        for name in JSON:
            frame[name] = [json.loads(text) if text else {} for text in frame[name]]
        frame = typed(frame)
        if keys is not None:
            order = {key: place for place, key in enumerate(keys)}
            frame = frame[frame["key"].isin(order)]
            frame = frame.iloc[np.argsort([order[key] for key in frame["key"]], kind="stable")]
        return frame.reset_index(drop=True)

    def arrays(self, key: str) -> dict[str, NDArray[Any]]:
        """A cell's arrays: traces, masks and others; none for a cell that has none, or is not there."""
        query = sql.select(CELLS.c.arrays).where(CELLS.c.key == key)
        with self._told("can't be read"), self._engine.connect() as connection:
            return unpacked(connection.scalar(query))


def named(place: str | os.PathLike[str]) -> str:
    """Path or URL of a store without a password, for messages."""
    text = os.fspath(place)
    url, path = _url(text)
    return text if path is not None else url.render_as_string(hide_password=True)


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


def _parts(items: list[Any], size: int = 500) -> list[list[Any]]:
    """Pieces, since databases limit how many values a statement has."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _fitting(name: str, value: Any) -> Any:
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


def _url(text: str) -> tuple[sql.URL, Path | None]:
    """A place as a URL, and as a path where it is a file of SQLite."""
    if "://" not in text:
        path = Path(text)
        return sql.URL.create("sqlite", database=str(path)), path
    try:
        url = sql.make_url(text)
    except ArgumentError:
        raise ValueError(
            "store is no URL that can be read; give a path, or DIALECT+DRIVER://USER:PASSWORD@HOST/DATABASE"
        ) from None
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ValueError("store in memory would be lost; give the path of a file")
        return url, Path(url.database)
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    return url, None


def _unwritable(path: Path) -> sql.URL:
    """The URL of a file where nothing can be written beside it: what nobody has open is read as it is."""
    log = path.with_name(f"{path.name}-wal")
    kind = {} if log.exists() and log.stat().st_size else {"immutable": "1"}
    return sql.URL.create(
        "sqlite", database=f"file:{quote(str(path.resolve()))}", query={"mode": "ro", "uri": "true", **kind}
    )


def _engine(url: sql.URL, name: str) -> sql.Engine:
    arguments: dict[str, Any] = {}
    if url.get_backend_name() == "sqlite":
        arguments = {"timeout": BUSY}
    elif url.get_backend_name() == "postgresql":
        arguments = {"connect_timeout": CONNECT}
    try:
        engine = sql.create_engine(url, connect_args=arguments, pool_pre_ping=True)
    except (NoSuchModuleError, ImportError) as error:
        hint = "pip install 'psycopg[binary]'" if "psycopg" in str(error) else "install its driver"
        raise ValueError(f"store {name!r}: no driver for {url.drivername!r}; {hint}") from None
    if url.get_backend_name() == "sqlite" and "mode" not in url.query:
        sql.event.listen(engine, "connect", _write_ahead)
    return engine


def _write_ahead(connection: Any, _record: Any) -> None:
    """Keep commits in a log beside the file: a killed process loses none, a power cut the last ones."""
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
    finally:
        cursor.close()


__all__ = [
    "CELLS",
    "COLUMNS",
    "DONE",
    "FAILED",
    "LAYOUT",
    "PLANNED",
    "RUNNING",
    "STATES",
    "DBAPIError",
    "Full",
    "Store",
    "named",
]
