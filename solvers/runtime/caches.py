"""Compiled code that is kept beside its source, or where that can be written, and outlives no release."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

PACKAGE = "combinatorial-brain-surgeon"
STAMP = "compiled-by-release"
"""File beside the compiled code that names the release which wrote it."""


FOLDER = "cbs-compiled"
"""Folder of compiled code among temporary files, with the user's number."""


def find_a_place(folder: Path = Path(__file__).parents[1]) -> str | None:
    """See that compiled code can be kept; where, if neither beside its source nor in the user's cache.

    Numba refuses to define a function that is to be cached where no folder for it can be written: in
    containers, or for users without a home. Then it gets a folder among the temporary files, by
    `NUMBA_CACHE_DIR`, so that processes started from this one use it, too. It must be known before the
    first function is defined.

    Args:
        folder: of the package.
    """
    if os.environ.get("NUMBA_CACHE_DIR") or _writable_beside(folder) or _writable(_users_cache(os.environ)):
        return None
    place = _temporary()
    os.environ["NUMBA_CACHE_DIR"] = place
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = place
    return place


@cache
def folder_of_code() -> Path:
    """Where machine code of this package is kept (`solvers.runtime.kept`), for all installations.

    That is a folder in the user's place for caches, or in `NUMBA_CACHE_DIR` if that is set; where nothing can
    be written there, one among the temporary files. What lies in it is run as it is found.
    """
    named = os.environ.get("NUMBA_CACHE_DIR")
    above = Path(named) if named else _users_cache(os.environ).parent
    folder = above / PACKAGE / "compiled"
    if not _writable(folder):
        folder = Path(_temporary())
    return folder


@cache
def spare_full_disks() -> None:
    """Have numba go on where compiled code can't be kept, for want of space: it runs all the same.

    To be called before anything is compiled, once numba is imported.
    """
    from numba.core.caching import FunctionCache

    save = FunctionCache.save_overload

    def careful(self: Any, signature: Any, code: Any) -> None:
        try:
            save(self, signature, code)  # type: ignore[no-untyped-call]
        except OSError as error:
            logger.info("compiled code could not be kept: %s", error)

    FunctionCache.save_overload = careful  # type: ignore[method-assign]


def _writable_beside(folder: Path) -> bool:
    folders = {folder, *(source.parent for source in folder.rglob("*.py"))}
    return all(_writable(inner / "__pycache__", parents=False) for inner in folders)


def _writable(folder: Path, *, parents: bool = True) -> bool:
    """Whether files can be made in a folder, which is made if need be."""
    try:
        folder.mkdir(exist_ok=True, parents=parents)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _users_cache(environment: Mapping[str, str]) -> Path:
    """Where numba keeps what it can't keep beside the source."""
    if sys.platform == "darwin":
        return Path(os.path.expanduser("~/Library/Caches")) / "numba"
    return Path(environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "numba"


def _temporary() -> str:
    """A folder that nobody else can write into: compiled code is run as it is found."""
    try:
        above = tempfile.gettempdir()
    except FileNotFoundError:
        above = "/dev/shm"
    owner = os.getuid() if hasattr(os, "getuid") else 0
    folder = os.path.join(above, f"{FOLDER}-{owner}")
    try:
        os.mkdir(folder, 0o700)
    except OSError:
        pass
    try:
        found = os.lstat(folder)
        if stat.S_ISDIR(found.st_mode) and found.st_uid == owner and not stat.S_IMODE(found.st_mode) & 0o022:
            return folder
    except OSError:
        pass
    folder = tempfile.mkdtemp(prefix=f"{FOLDER}-", dir=above)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def forget_older_releases(folder: Path = Path(__file__).parents[1], release: str | None = None) -> int:
    """Delete compiled code that another release left below a folder; how many files.

    An index of numba's cache holds types by the names of their modules, and can't be read once those have
    moved; and its age is told from one source file alone, not from those of the functions that it calls.
    An upgrade in place leaves such files behind. Folders that can't be written to are left as they are:
    numba keeps its files elsewhere then, by `NUMBA_CACHE_DIR` or in the user's own cache.

    Args:
        folder: of the package.
        release: the version that is installed; None to look it up. A source tree that is not installed has
            none, and then nothing is done.
    """
    if release is None:
        try:
            release = version(PACKAGE)
        except PackageNotFoundError:
            return 0
    stamp = folder / "__pycache__" / STAMP
    try:
        if stamp.read_text() == release:
            return 0
    except FileNotFoundError:
        pass
    except OSError:
        return 0
    stale = [*folder.rglob("__pycache__/*.nbi"), *folder.rglob("__pycache__/*.nbc")]
    try:
        stamp.parent.mkdir(exist_ok=True)
        for path in stale:
            path.unlink(missing_ok=True)
        stamp.write_text(release)
    except OSError:
        return 0
    return len(stale)


find_a_place()
