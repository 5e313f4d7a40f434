"""Checkpoints: the file from which an interrupted search goes on, whole at any time and of one problem only.

`Checkpoint` is the file, `Keeper` writes it now and then, and `pack` and `unpack` take any number of things
with arrays by name (trees, rows, proofs) to arrays of the file and back.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.runtime.writing import check_place, replacing

logger = logging.getLogger(__name__)

FORMAT = "cbs checkpoint 3"
EVERY = 30.0
"""Seconds from one writing to the next."""
RARELY = 60.0
"""The same where writing takes long."""
SHARE = 0.05
"""Of the time that may go into writing, if that keeps to `RARELY`."""

DIGEST = "digest"
"""Last member of the archive: a digest of all the others."""

Arrays = Mapping[str, NDArray[Any]]
Pieces = Iterable[tuple[str, Sequence[NDArray[Any]]]]
"""Names, each with the pieces of which its array is made, one after another along the first axis."""


class Checkpoint:
    """A file of arrays that belong to one problem and one way of solving it.

    It is an `.npz` archive without pickles or compression, with a digest of all that it holds. Every write
    replaces the whole file at once, so that a kill at any time leaves a complete one.

    Args:
        path: of the file; it need not exist.
        key: what the file belongs to: names and numbers or strings, which a file read must agree with.
        every: seconds from one writing to the next.

    Attributes:
        spent: seconds of the searches before this one, once the file is loaded.

    Raises:
        ValueError: if there can't be such a file.
    """

    def __init__(self, path: str | os.PathLike[str], key: Mapping[str, Any], every: float = EVERY) -> None:
        self.path, self.every = Path(path), every
        check_place("checkpoint", path)
        if self.path.exists() and not self.path.is_file():
            raise ValueError(f"checkpoint {str(path)!r} is no plain file, and could not be gone on from")
        self.key = {"format": FORMAT, **key}
        self.spent = 0.0
        self._began = self._written = time.perf_counter()
        self._cost = 0.0

    @property
    def seconds(self) -> float:
        """Wall time of this search and of those that it goes on from."""
        return self.spent + time.perf_counter() - self._began

    def check(self) -> None:
        """See that the file, if there is one, belongs here.

        Raises:
            ValueError: if it does not, or is damaged.
        """
        if self.path.exists():
            key = self._read(["key"])["key"]
            try:
                there = json.loads(str(key[()]))
                wrong = [name for name in self.key if there.get(name) != self.key[name]]
            except (ValueError, AttributeError, RecursionError) as error:
                raise self._damaged(str(error)) from None
            if wrong:
                facts = f"{_brief(there.get(wrong[0]))}, not {_brief(self.key[wrong[0]])}"
                raise ValueError(
                    f"checkpoint {str(self.path)!r} belongs to another {wrong[0]} ({facts}); "
                    "name another file, or delete this one"
                )

    def load(self) -> dict[str, NDArray[Any]] | None:
        """The arrays of the file, or None if there is none.

        Raises:
            ValueError: as `check`.
        """
        self.check()
        if not self.path.exists():
            return None
        arrays = self._read()
        self.spent = float(arrays.pop("seconds")[0])
        return arrays

    def _read(self, names: list[str] | None = None) -> dict[str, NDArray[Any]]:
        try:
            with self.path.open("rb") as raw, zipfile.ZipFile(raw) as archive:
                members = archive.infolist()
                if members[-1].filename != DIGEST or archive.read(DIGEST) != _digest(members[:-1]):
                    raise ValueError("its digest is another")
                raw.seek(0)
                with np.load(raw, allow_pickle=False) as file:
                    return {name: file[name] for name in names or file.files if name != DIGEST}
        except Exception as error:  # of many classes, for bytes that no checkpoint has
            raise self._damaged(str(error).split("\n")[0] or type(error).__name__) from None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Complain about the file if what is made of its arrays fails.

        Raises:
            ValueError: if it does.
        """
        try:
            yield
        except (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, why: str) -> ValueError:
        return ValueError(f"checkpoint {str(self.path)!r} is damaged ({why}); delete it to start afresh")

    @property
    def due(self) -> bool:
        """Whether it is time to write again."""
        wait = min(max(self.every, self._cost / SHARE), max(self.every, RARELY))
        return time.perf_counter() >= self._written + wait

    def put_off(self) -> None:
        """Wait as if the file had been written."""
        self._written = time.perf_counter()

    def save(self, arrays: Pieces) -> None:
        """Replace the file.

        Args:
            arrays: what it is to hold. Pieces are written as they are, so that no second copy is made.

        Raises:
            OSError: if the disk is full, or the folder is gone.
        """
        start = time.perf_counter()
        with replacing(self.path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            _member(archive, "key", [np.array(json.dumps(self.key))])
            _member(archive, "seconds", [np.array([self.seconds])])
            for name, pieces in arrays:
                _member(archive, name, pieces)
            archive.writestr(DIGEST, _digest(archive.infolist()))
        self._written = time.perf_counter()
        self._cost = self._written - start


class Keeper:
    """Keeps a search in a file, if there is one. A full disk does not end a search: it is told and noted.

    Args:
        checkpoint: the file, or None.
        state: gives what to keep, as `Checkpoint.save` takes it.

    Attributes:
        stats: how often it was written, and why the last writing failed, if it did.
    """

    def __init__(self, checkpoint: Checkpoint | None, state: Callable[[], Pieces]) -> None:
        self.checkpoint, self.state = checkpoint, state
        self.stats: dict[str, Any] = {}
        if checkpoint is not None:
            self.stats["checkpoints"] = 0
            self._told = False
            self.save()

    def due(self) -> bool:
        """Whether it is time to write."""
        return self.checkpoint is not None and self.checkpoint.due

    def save(self) -> None:
        """Write, while nothing that is kept changes."""
        if self.checkpoint is None:
            return
        try:
            self.checkpoint.save(self.state())
            self.stats["checkpoints"] += 1
            self.stats.pop("checkpoint_error", None)
        except OSError as error:
            why = error.strerror or str(error)
            if not self._told:
                logger.warning("checkpoint %s can't be written now: %s", self.checkpoint.path, why)
                self._told = True
            self.stats["checkpoint_error"] = why
            self.checkpoint.put_off()


def pack(kind: str, items: Sequence[Arrays]) -> Iterator[tuple[str, list[NDArray[Any]]]]:
    """Things with arrays by name, as `Checkpoint.save` takes them and `unpack` gives them back.

    Of one name all have arrays of as many axes, but not every thing needs to have one.
    """
    yield f"{kind} count", [np.array([len(items)])]
    for name in dict.fromkeys(name for item in items for name in item):
        having = [i for i, item in enumerate(items) if name in item]
        arrays = [items[i][name] for i in having]
        dtype = np.result_type(*arrays)
        yield f"{kind} {name}", [array.ravel().astype(dtype, copy=False) for array in arrays]
        yield f"{kind} {name} shape", [np.array([array.shape for array in arrays], np.int64)]
        yield f"{kind} {name} of", [np.array(having, np.int64)]


def unpack(kind: str, arrays: Arrays) -> list[dict[str, NDArray[Any]]]:
    """What was given to `pack`.

    Raises:
        ValueError: if the pieces don't fit.
        KeyError: if some are missing.
    """
    items: list[dict[str, NDArray[Any]]] = [{} for _ in range(int(arrays[f"{kind} count"][0]))]
    for full in arrays:
        if full.startswith(f"{kind} ") and full.endswith(" of"):
            whole = full.removesuffix(" of")
            shapes = arrays[f"{whole} shape"]
            ends = np.cumsum(shapes.prod(axis=1))
            if (shapes < 0).any() or ends[-1] != len(arrays[whole]):
                raise ValueError(f"{whole} does not fit its shapes")
            pieces = np.split(arrays[whole], ends[:-1])
            for i, piece, shape in zip(arrays[full].tolist(), pieces, shapes, strict=True):
                items[i][whole.removeprefix(f"{kind} ")] = piece.reshape(shape)
    return items


def _digest(members: Sequence[zipfile.ZipInfo]) -> bytes:
    """Of names, sizes and checksums, which are those of the content once it is read; none is compressed."""
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it is compressed")
    facts = [(member.filename, member.file_size, member.CRC) for member in members]
    return hashlib.sha256(repr(facts).encode()).hexdigest().encode()


def _brief(fact: object) -> str:
    text = str(fact)
    return text if len(text) <= 40 else f"{text[:12]}..."


def _member(archive: zipfile.ZipFile, name: str, pieces: Sequence[NDArray[Any]]) -> None:
    first = pieces[0]
    shape = (sum(len(piece) for piece in pieces), *first.shape[1:]) if first.ndim else ()
    header = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_2_0(member, header)
        for piece in pieces:
            member.write(np.ascontiguousarray(piece).data if piece.size else b"")
