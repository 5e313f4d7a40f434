"""Machine code that is kept between processes, by what it was made of.

A file's name is a digest of a function, of all functions and constants that it refers to, of the types of its
arguments, and of the versions and the processor that it was made by and for. So nothing stale is ever found,
a copy of the source finds what the original made, and files of another release are merely not asked for.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

import numpy as np
from numba.core import serialize
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher
from numba.extending import _Intrinsic

from solvers.runtime.caches import folder_of_code

if TYPE_CHECKING:
    from solvers.runtime.compiled import Entry

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)
SUFFIX = ".code"
"""Of a file of machine code."""
DAYS = 60.0
"""Since a file was last used, after which it is deleted when another is written."""
TOUCH = 1.0
"""Days after which using a file is noted again."""


class Kept(_Cache):
    """Cache of one function, in numba's sense: a file for each tuple of argument types.

    Where several processes need what nobody has compiled yet, one compiles it and the others wait for that.

    Args:
        entry: the function.

    Attributes:
        used: files that were read or written by this process.
    """

    used: ClassVar[set[Path]] = set()

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._own: str | None = None
        self._lock: BinaryIO | None = None

    @property
    def cache_path(self) -> str:
        """The folder."""
        return str(folder_of_code())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was compiled for argument types, or None; then the caller is the one to compile it."""
        target_context.refresh()
        path = self.path(sig, target_context.codegen())
        found = _read(path, target_context)
        if found is None:
            self._wait(path)
            found = _read(path, target_context)
        if found is not None:
            self.used.add(path)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled; a disk without room costs no more than that."""
        path = self.path(sig, data.codegen)
        if data.library.has_dynamic_globals:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _forget(path.parent)
            part = path.with_name(f"{path.name}.{os.getpid()}.part")
            try:
                part.write_bytes(serialize.dumps(data._reduce()))
                os.replace(part, path)
                self.used.add(path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            logger.info("compiled code could not be kept: %s", error)
        self.release()

    def path(self, sig: Any, codegen: Any) -> Path:
        """The file for argument types."""
        if self._own is None:
            self._own = fingerprint(self._entry)
        made = (self._own, str(sig), codegen.magic_tuple(), sys.version_info[:3], *versions())
        name = hashlib.sha256(repr(made).encode()).hexdigest()[:32]
        return folder_of_code() / f"{self._entry.py_func.__name__}-{name}{SUFFIX}"

    def release(self) -> None:
        """Let others compile."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _wait(self, path: Path) -> None:
        """Until nobody else is compiling the same; then be the one who does."""
        if sys.platform == "win32":
            return
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = path.with_suffix(".lock").open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def enable(self) -> None:
        """See numba."""

    def disable(self) -> None:
        """See numba."""

    def flush(self) -> None:
        """See numba."""


def versions() -> tuple[str, ...]:
    """Of the packages that make machine code and set how arrays lie in memory."""
    return version("numba"), version("llvmlite"), np.__version__


def _read(path: Path, context: Any) -> Any:
    try:
        data = path.read_bytes()
        if time.time() - path.stat().st_mtime > 86400 * TOUCH:
            os.utime(path)
    except OSError:
        return None
    try:
        return CompileResult._rebuild(context, *pickle.loads(data))
    except Exception as error:  # of many classes, for bytes that are no machine code
        logger.info("compiled code %s can't be read, and is made anew: %s", path, error)
        return None


def _forget(folder: Path) -> None:
    """Delete what nobody has used for long."""
    before = time.time() - 86400 * DAYS
    for entry in os.scandir(folder):
        with suppress(OSError):
            if entry.stat().st_mtime < before:
                os.unlink(entry.path)


def fingerprint(entry: Entry) -> str:
    """A digest of a function and all that it refers to, wherever the source lies and what else it says."""
    digest = hashlib.sha256()
    for piece in _pieces(entry, set()):
        digest.update(f"{len(piece)}:{piece}".encode())
    return digest.hexdigest()


def _pieces(thing: Any, seen: set[int]) -> Iterator[str]:
    """Strings that tell one meaning of an object from another."""
    if isinstance(thing, Dispatcher):
        yield repr(sorted((name, _plain(value)) for name, value in thing.targetoptions.items()))
        yield from _pieces(thing.py_func, seen)
    elif isinstance(thing, _Intrinsic):
        yield from _pieces(thing._defn, seen)
    elif isinstance(thing, FunctionType):
        yield thing.__qualname__
        if id(thing) not in seen:
            seen.add(id(thing))
            yield from _function(thing, seen)
    elif isinstance(thing, type):
        yield f"{thing.__module__}.{thing.__qualname__} {getattr(thing, '_fields', '')}"
    elif isinstance(thing, ModuleType):
        yield thing.__name__
    elif isinstance(thing, np.ndarray):
        yield f"{thing.dtype} {thing.shape} {thing.tobytes().hex()}"
    elif isinstance(thing, int | float | complex | str | bytes | tuple | list | np.generic | np.dtype | None):
        yield f"{type(thing).__name__} {thing!r}"
    else:
        yield f"{type(thing).__module__}.{type(thing).__qualname__}"


def _function(function: FunctionType, seen: set[int]) -> Iterator[str]:
    yield repr(function.__defaults__)
    for code in _codes(function.__code__):
        yield code.co_code.hex()
        yield repr((code.co_varnames, code.co_freevars, code.co_names))
        for constant in code.co_consts:
            if not isinstance(constant, CodeType) and constant != function.__doc__:
                yield f"{type(constant).__name__} {constant!r}"
        for name in code.co_names:
            if name in function.__globals__:
                yield from _pieces(function.__globals__[name], seen)
    for cell in function.__closure__ or ():
        yield from _pieces(cell.cell_contents, seen)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _plain(value: Any) -> str:
    return repr(sorted(value) if isinstance(value, set | frozenset) else value)
