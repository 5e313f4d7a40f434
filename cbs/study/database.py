"""Databases by path or URL: how they are reached, and their errors in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sql
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)

CONNECT = 5
"""Seconds after which a database that does not answer is unreachable."""
BUSY = 30
"""Seconds that SQLite waits for another process's lock."""


class Full(OSError):
    """The disk, or the database's room, is full."""


class Away(ValueError):
    """The database can't be used for now: another process's lock, or a server that is gone for a while."""


class Unfit(ValueError):
    """An answer that the table can't hold, such as a number of more digits than its column."""


@contextmanager
def told(engine: sql.Engine, name: str, what: str) -> Iterator[None]:
    """Database errors in one line: `Full`, `Away` if it may be better soon, `Unfit`, else ValueError."""
    try:
        yield
    except SQLAlchemyError as error:
        why = " ".join(str(getattr(error, "orig", None) or error).split()) or type(error).__name__
        if isinstance(error, DataError):
            raise Unfit(f"store {name!r} can't hold it ({why:.200})") from None
        if "disk is full" in why or "No space left" in why or "could not extend file" in why:
            raise Full(f"store {name!r}: the disk is full") from None
        remote = engine.dialect.name != "sqlite"
        soon = (remote and isinstance(error, OperationalError | InterfaceError)) or "is locked" in why
        raise (Away if soon else ValueError)(f"store {name!r} {what} ({why:.200})") from None


def named(place: str | os.PathLike[str]) -> str:
    """Path or URL of a store without a password, for messages."""
    text = os.fspath(place)
    url, path = address(text)
    return text if path is not None else url.render_as_string(hide_password=True)


def address(text: str) -> tuple[sql.URL, Path | None]:
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
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    return url, None


def unwritable(path: Path) -> sql.URL:
    """The URL of a file where nothing can be written beside it: what nobody has open is read as it is."""
    log = path.with_name(f"{path.name}-wal")
    kind = {} if log.exists() and log.stat().st_size else {"immutable": "1"}
    return sql.URL.create(
        "sqlite", database=f"file:{quote(str(path.resolve()))}", query={"mode": "ro", "uri": "true", **kind}
    )


def engine_of(url: sql.URL, name: str) -> sql.Engine:
    """What connects to a database; nothing is connected yet.

    Raises:
        ValueError: in one line, if its driver is not installed.
    """
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
