"""NumPy archives (`.npz`) as plain arrays; nothing in them is executed."""

from __future__ import annotations

import os
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_archive(path: str | os.PathLike[str], what: str) -> dict[str, NDArray[Any]]:
    """Every array of an archive by name.

    Args:
        path: the file.
        what: what to call it in an error.

    Raises:
        ValueError: one line that names the file, if it is missing, cut short, damaged, or holds pickles.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file), np.load(file, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except (OSError, ValueError, EOFError, MemoryError, SyntaxError, zlib.error, zipfile.BadZipFile) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ValueError(f"{what} {os.fspath(path)!r} can't be read: {reason}") from None
