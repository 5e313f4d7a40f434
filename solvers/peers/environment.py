"""Virtual environments of peers: made whole or not at all, with exact versions, and found again.

A peer is a solver of others whose requirements clash with this project's, such as NumPy 1, or which is not
wanted beside it. Each lives in an environment of its own, made with the standard library's `venv` and its
own pip, which reads the user's configuration (proxies, mirrors, constraints). What it installs stands in
`requirements/NAME.txt`, with exact versions.

An environment is made in a folder beside its place, tried, and then renamed: one that is there is whole,
whatever ended an installation that is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VARIABLE = "CBS_PEERS"
"""Environment variable that names the folder of the environments."""
MARK = "peer.json"
"""File of a whole environment that says what is in it."""
MAKING = ".making-"
"""How the name of a folder begins in which an environment is being made."""
STALE = 6 * 3600.0
"""Seconds after which such a folder is nobody's any more."""
HERE = Path(__file__).parent
SCRIPT = HERE / "answering.py"
"""What the peer's interpreter runs."""


def folder() -> Path:
    """Where the environments are: `CBS_PEERS`, or `peers` in this project's folder of the user's cache."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser().absolute() if named else _in_cache()


def _in_cache() -> Path:
    """As platformdirs has it, which takes too long to import for a list of solvers."""
    if sys.platform == "win32":
        caches = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    elif sys.platform == "darwin":
        caches = os.path.expanduser("~/Library/Caches")
    else:
        caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(caches) / "combinatorial-brain-surgeon" / "peers"


def requirements(name: str) -> Path:
    """The file of a peer's exact requirements."""
    return HERE / "requirements" / f"{name}.txt"


def interpreter(name: str, within: Path | None = None) -> Path:
    """The interpreter of a peer's environment, or of one in the folder `within`."""
    inner = ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
    return (folder() / name if within is None else within).joinpath(*inner)


def state(name: str) -> dict[str, Any] | None:
    """What a peer's environment holds: `version`, `python`, `packages`; None where there is none to use.

    One made from other requirements than those of this release is none to use either.
    """
    try:
        found: dict[str, Any] = json.loads((folder() / name / MARK).read_text(encoding="utf-8"))
        fits = (
            found["requirements"] == _digest(name)
            and isinstance(found["version"], str)
            and isinstance(found["python"], str)
            and interpreter(name).exists()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if fits else None


def outdated(name: str) -> bool:
    """Whether there is an environment of a peer that can't be used any more."""
    return (folder() / name).exists() and state(name) is None


def install(name: str, *, again: bool = False, tell: Callable[[str], object] = lambda text: None) -> Path:
    """Make a peer's environment, unless a usable one is there; its interpreter.

    Args:
        name: of the peer.
        again: whether to make it anew all the same.
        tell: is told what is being done, a line at a time.

    Raises:
        ValueError: in one line, if a step fails; nothing is left of it then.
    """
    if not again and state(name) is not None:
        return interpreter(name)
    tell(f"{name}: making an environment in {folder() / name}")
    with _making(name) as place:
        _made(name, [sys.executable, "-I", "-m", "venv", str(place)], "no environment could be made")
        python = str(interpreter(name, place))
        tell(f"{name}: installing {requirements(name).read_text(encoding='utf-8').count('==')} packages")
        pip = [python, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
        _made(name, [*pip, "--requirement", str(requirements(name))], "pip failed")
        told = _made(
            name, [python, "-I", str(SCRIPT), name, "--version"], "it was installed, but does not run"
        )
        facts = json.loads(told.splitlines()[-1])
        facts |= {"requirements": _digest(name)}
        (place / MARK).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        _put(place, folder() / name)
    tell(f"{name}: {facts['version']} is ready")
    return interpreter(name)


def remove(name: str) -> bool:
    """Delete a peer's environment; whether there was one."""
    there = (folder() / name).exists()
    if there:
        _discard(folder() / name)
    return there


def _digest(name: str) -> str:
    return hashlib.sha256(requirements(name).read_bytes()).hexdigest()


@contextmanager
def _making(name: str) -> Iterator[Path]:
    """A new folder beside the environments, which is gone in the end unless it was put in its place."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        for left in folder().glob(f"{MAKING}*"):
            if time.time() - left.stat().st_mtime > STALE:
                shutil.rmtree(left, ignore_errors=True)
        place = folder() / f"{MAKING}{name}-{secrets.token_hex(4)}"
        place.mkdir()
    except OSError as error:
        raise ValueError(
            f"peer {name!r} can't be installed in {folder()}: {error.strerror or error}; "
            f"name another folder by {VARIABLE}"
        ) from None
    try:
        yield place
    except OSError as error:
        raise ValueError(f"peer {name!r} is not installed: {error}") from None
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _put(place: Path, target: Path) -> None:
    """Rename a whole environment into its place; one that was there gives way."""
    if target.exists():
        _discard(target)
    try:
        place.rename(target)
    except OSError:  # another installation was first, and its environment is as good
        if not (target / MARK).exists():
            raise


def _discard(target: Path) -> None:
    """Delete a folder: it is no longer found from the first moment on."""
    aside = target.with_name(f"{MAKING}old-{secrets.token_hex(4)}")
    target.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _made(name: str, command: list[str], failed: str) -> str:
    """What a command printed; ValueError with its last complaint if it fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", env=environment, stdin=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise ValueError(f"peer {name!r} is not installed: {failed}: {_complaint(done)}")
    return done.stdout


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The line of a failed command's output that says most."""
    lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    with contextlib.suppress(IndexError):
        return (errors or lines)[-1].removeprefix("ERROR: ")
    return f"status {done.returncode}"
