"""Files written beside their place and renamed, so that the old one stays whole until the new one is."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

SUFFIX = ".part"
"""Of a file that is being written."""
SHARED = 40
"""Letters that its name shares with the file's; more could make it longer than a name may be."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write into, which takes the place of another when the block ends without an exception.

    A link stays, and what it points to is replaced. What is no plain file, such as `/dev/null` or a pipe, is
    written into instead, once all is there.

    Args:
        path: of the file; it keeps its permissions if it exists.

    Raises:
        OSError: if it can't be written; nothing is left behind then.
    """
    target = _target(path)
    if target.exists() and not target.is_file():
        with tempfile.TemporaryFile() as whole:
            yield whole
            whole.seek(0)
            with target.open("wb") as device:
                shutil.copyfileobj(whole, device)
        return
    part, handle = _open_beside(target)
    try:
        with os.fdopen(handle, "wb") as file:
            if sys.platform != "win32":
                if target.exists():
                    os.fchmod(handle, stat.S_IMODE(target.stat().st_mode))
                with suppress(OSError):  # not every file system has locks
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
            file.flush()
            os.fsync(handle)
        os.replace(part, target)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None and error.errno is not None:
            error.filename = os.fspath(path)  # that of a full disk does not say which file
        raise


def check_place(what: str, path: str | os.PathLike[str]) -> None:
    """See that a file can be written, and remove what a killed process left there half written.

    Args:
        what: the file is to the user, for the complaint.
        path: of the file.

    Raises:
        ValueError: in one line, if it can't be written.
    """
    target = _target(path)
    try:
        there = target.exists()
        if there and target.is_dir():
            raise ValueError(f"{what} {str(path)!r} is a folder; name a file")
        if there and not os.access(target, os.W_OK):
            raise ValueError(f"{what} {str(path)!r} is protected against writing; name another file")
        if there and not target.is_file():
            return
        if not target.parent.is_dir():
            raise ValueError(f"{what} {str(path)!r}: {str(target.parent)!r} is not a folder; make it first")
        part, handle = _open_beside(target)
        os.close(handle)
        part.unlink()
    except OSError as error:
        raise ValueError(
            f"{what} {str(path)!r} can't be written ({error.strerror}); name a file in a folder that can"
        ) from None
    _remove_leftovers(target)


def _target(path: str | os.PathLike[str]) -> Path:
    """What is to be replaced or written into: where links lead, but to an open pipe they name no place."""
    target = os.path.realpath(path)
    return Path(path if os.path.exists(path) and not os.path.exists(target) else target)


def _open_beside(target: Path) -> tuple[Path, int]:
    part = target.with_name(f"{_prefix(target)}{secrets.token_hex(4)}{SUFFIX}")
    return part, os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _prefix(target: Path) -> str:
    return f".{target.name[:SHARED]}."


def _remove_leftovers(target: Path) -> None:
    """Remove half-written files that no living process holds locked."""
    if sys.platform == "win32":
        return
    with suppress(OSError):
        for name in os.listdir(target.parent):
            if name.startswith(_prefix(target)) and name.endswith(SUFFIX):
                with suppress(OSError), (target.parent / name).open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    (target.parent / name).unlink()
