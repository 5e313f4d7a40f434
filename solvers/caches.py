"""Compiled code that is kept beside its source, and does not outlive a release."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = "combinatorial-brain-surgeon"
STAMP = "compiled-by-release"
"""File beside the compiled code that names the release which wrote it."""


def forget_older_releases(folder: Path = Path(__file__).parent, release: str | None = None) -> int:
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
