"""The store of a study: one table of cells in SQLite, or in any database that SQLAlchemy speaks to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sql
from numpy.typing import NDArray

from cbs.study.arrays import packed, unpacked
from cbs.study.cell import Answer, Cell, canonical, written
from cbs.study.database import Unfit, address, engine_of, named, told, unwritable
from cbs.study.schema import (
    CELLS,
    CLEAN,
    DONE,
    FACTS,
    FAILED,
    JSON,
    LAYOUT,
    MEMBERS,
    META,
    PLANNED,
    RESULTS,
    RUNNING,
    STATES,
    TABLES,
    fitting,
    typed,
)

if TYPE_CHECKING:
    import pandas as pd

MAKING = 1936421221
"""Number of the lock that PostgreSQL holds while tables are made."""
LARGEST = 900_000_000
"""Bytes of a cell's arrays, packed, that databases take."""


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
        (url, path), name = address(text), named(text)
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
                url = unwritable(path)
        store = cls(engine_of(url, name), name)
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
            TABLES.create_all(connection)
            if connection.scalar(sql.select(META.c.value).where(META.c.name == "layout")) is None:
                connection.execute(META.insert().values(name="layout", value=str(LAYOUT)))

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _told(self, what: str) -> AbstractContextManager[None]:
        return told(self._engine, self.name, what)

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
                "revision": revision, "machine": machine, "state": PLANNED, "attempts": 0, **CLEAN,
            }  # fmt: skip
            for name in ("study", "instance", "solver", "seed", *FACTS):
                row[name] = fitting(name, row[name])
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
            values = {name: fitting(name, _plain(value)) for name, value in known.items()}
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
                count += connection.execute(query.values(state=PLANNED, attempts=0, **CLEAN)).rowcount
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


def _parts(items: list[Any], size: int = 500) -> list[list[Any]]:
    """Pieces, since databases limit how many values a statement has."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
