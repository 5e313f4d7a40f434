"""NumPy archives (`.npz`) as plain arrays: judged by what they declare, before a byte of it is inflated.

An archive is a zip file of `.npy` files. Each declares the type and shape of its array in a short header, and
the zip file the size of each. `Archive` looks at these alone, so that whoever reads one can refuse shapes
that do not fit each other before any memory is spent on them. Nothing in a file is executed.
"""

from __future__ import annotations

import math
import os
import re
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

MAGIC = b"\x93NUMPY"
HEADER = re.compile(
    r"\s*\{\s*'descr':\s*'([^']*)',\s*'fortran_order':\s*(True|False),\s*'shape':\s*\(([\d,\s]*)\),?\s*\}\s*"
)
TYPE = re.compile(r"[<>|=]?[biufcSU]\d{1,8}")
"""Types that are read: numbers and strings. Which of them mean something is for the reader to judge."""
LONGEST_HEADER = 4096
"""Bytes of an array's header; NumPy writes 118 for those that are allowed here."""
LONGEST_STRING = 4096
"""Bytes of a string."""
DEFLATION = 1032
"""The most bytes that one deflated byte can stand for."""
CHUNK = 1 << 20
"""Bytes that are inflated together."""
DAMAGES = (
    OSError, ValueError, TypeError, LookupError, EOFError, MemoryError, OverflowError, RuntimeError,
    struct.error, zlib.error, zipfile.BadZipFile, zipfile.LargeZipFile,
)  # fmt: skip
"""What reading a damaged archive may raise."""


class Shaped(Protocol):
    """An array, or what an archive declares of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of its axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its entries."""


@dataclass(frozen=True)
class Declared:
    """What an archive declares of an array.

    Attributes:
        shape: lengths of its axes.
        dtype: type of its entries.
        fortran: whether its first index runs fastest.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


class Unreadable(ValueError):
    """One line that names a file, and what keeps it from being read."""


class Archive:
    """A file of arrays, each of which can be read.

    Args:
        path: the file.
        what: what the file is, to be called so in an error.

    Attributes:
        name: what to call the file in an error.
        size: its bytes.
        declared: what it says of every array, by name.

    Raises:
        ValueError: one line that names the file, and the array if it is one, if it is missing, no archive,
            cut short, damaged, or holds anything but plain arrays, each once; or declares more than the file
            or this machine's memory can hold.
    """

    def __init__(self, path: str | os.PathLike[str], what: str) -> None:
        self.name = f"{what} {os.fspath(path)!r}"
        try:
            kind = os.stat(path)
        except (OSError, ValueError) as error:
            what = "it does not exist" if isinstance(error, FileNotFoundError) else _line(error)
            raise ValueError(f"{self.name} can't be read: {what}") from None
        if not stat.S_ISREG(kind.st_mode):
            it = "is a folder" if stat.S_ISDIR(kind.st_mode) else "is not a file"
            raise ValueError(f"{self.name} can't be read: it {it}; give a .npz file")
        self.path, self.size = path, kind.st_size
        try:
            with zipfile.ZipFile(path) as file:
                self.declared = self._declarations(file)
        except zipfile.BadZipFile as error:
            raise ValueError(
                f"{self.name} can't be read: it is not a .npz archive, as numpy.savez writes ({_line(error)})"
            ) from None
        except Unreadable:
            raise
        except DAMAGES as error:
            raise ValueError(f"{self.name} can't be read: {_line(error)}") from None

    def read(self, name: str) -> NDArray[Any]:
        """An array, by the shape and type that it declares.

        Raises:
            ValueError: if the file is damaged, or memory does not suffice.
        """
        declared = self.declared[name]
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
                if _header(file) != declared:
                    raise ValueError(f"{name!r} is no longer what it was")
                array = np.empty(declared.shape, declared.dtype, order="F" if declared.fortran else "C")
                into = (array.T if declared.fortran else array).reshape(-1)
                into = into.view(np.uint8) if declared.size else np.empty(0, np.uint8)
                done = 0
                while done < len(into):
                    got = np.frombuffer(file.read(min(CHUNK, len(into) - done)), np.uint8)
                    if not len(got):
                        raise EOFError(f"{done} of {len(into)} bytes of {name!r} are there")
                    into[done : done + len(got)] = got
                    done += len(got)
                if file.read(1):
                    raise ValueError(f"{name!r} goes on after its end")
            if array.dtype.kind == "b" and (array.view(np.uint8) > 1).any():
                raise ValueError(f"{name!r} holds booleans that are neither true nor false")
            if array.dtype.kind == "U":
                letters = into.view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
                if (letters > sys.maxunicode).any():
                    raise ValueError(f"{name!r} holds letters that are none")
        except DAMAGES as error:
            raise ValueError(f"{self.name} can't be read: {_line(error)}") from None
        return array

    def _declarations(self, archive: zipfile.ZipFile) -> dict[str, Declared]:
        found: dict[str, Declared] = {}
        others = []
        if sum(entry.compress_size for entry in archive.infolist()) > self.size:
            raise Unreadable(f"{self.name} can't be read: its arrays overlap")
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if name == entry.filename:
                others.append(name)
                continue
            if name in found:
                raise Unreadable(f"{self.name} can't be read: it has two arrays {name!r:.40}")
            try:
                found[name] = _declaration(archive, entry)
            except zipfile.BadZipFile as error:
                raise Unreadable(f"{self.name} can't be read: {_line(error)}") from None
            except DAMAGES as error:
                raise Unreadable(
                    f"{self.name} can't be read: field {name!r:.40} is not a plain array ({_line(error)})"
                ) from None
        if others:
            raise Unreadable(f"{self.name} can't be read: {others[0]!r:.40} in it is not an array (.npy)")
        total, memory = sum(each.size for each in found.values()), _memory()
        if total > memory:
            raise Unreadable(
                f"{self.name} can't be read: it declares {total:.3g} bytes, more than the {memory:.3g} of "
                "this machine's memory"
            )
        return found


def read_archive(
    path: str | os.PathLike[str], what: str, judge: Callable[[Mapping[str, Shaped]], None]
) -> dict[str, NDArray[Any]]:
    """Every array of an archive by name.

    Args:
        path: the file.
        what: what to call it in an error.
        judge: raises ValueError if the arrays declared are not those that should be there.

    Raises:
        ValueError: one line that names the file and what is wrong with it.
    """
    archive = Archive(path, what)
    try:
        judge(archive.declared)
    except ValueError as error:
        raise ValueError(f"{archive.name}: {error}") from None
    return {name: archive.read(name) for name in archive.declared}


def _declaration(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Declared:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"compressed by method {entry.compress_type}, not stored or deflated")
    if entry.flag_bits & 0x1:
        raise ValueError("encrypted")
    most = entry.compress_size * (1 if entry.compress_type == zipfile.ZIP_STORED else DEFLATION)
    with archive.open(entry) as file:
        declared = _header(file)
        length = file.tell() + declared.size
    if not length == entry.file_size <= most:
        raise ValueError(
            f"declares {length} bytes, has {entry.file_size} in {entry.compress_size} of the file"
        )
    return declared


def _header(file: IO[bytes]) -> Declared:
    """The declaration that a `.npy` file starts with, by NumPy's description of the format."""
    start = file.read(len(MAGIC) + 2)
    if start[:-2] != MAGIC or start[-2:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise ValueError("it does not start as one")
    width = 2 if start[-2] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"its header has {length} bytes")
    text = file.read(length).decode("latin-1")
    if len(text) < length:
        raise EOFError("cut short")
    header = HEADER.fullmatch(text)
    if not header:
        raise ValueError("its header is not that of a plain array")
    type_, fortran, lengths = header.groups()
    if not TYPE.fullmatch(type_):
        raise ValueError(f"it holds {type_!r:.40}")
    dtype, shape = np.dtype(type_), tuple(int(x) for x in lengths.split(",") if x.strip())
    if dtype.kind in "SU" and dtype.itemsize > LONGEST_STRING:
        raise ValueError(f"it holds strings of {dtype.itemsize} bytes")
    if len(shape) > 32 or math.prod(shape) * max(dtype.itemsize, 1) >= 1 << 62:
        raise ValueError(f"its shape is ({lengths:.40})")
    return Declared(shape, dtype, fortran == "True")


def _memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def _line(error: BaseException) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text[:200] or type(error).__name__
