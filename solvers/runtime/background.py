"""Compiling in a process of its own, beside a first solve that does without (`solvers.runtime.plain`)."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from solvers.runtime.caches import folder_of_code
from solvers.runtime.plain import SWITCH
from solvers.runtime.warming import Task, is_ready, make_ready

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

_started: dict[Task, subprocess.Popen[bytes]] = {}


def allowed() -> bool:
    """Whether this process may start one: no worker of another, where code can be kept."""
    if sys.platform == "win32" or not sys.executable or os.environ.get(SWITCH) == "0":
        return False
    with suppress(OSError):
        folder_of_code().mkdir(parents=True, exist_ok=True, mode=0o700)
    return multiprocessing.parent_process() is None and os.access(folder_of_code(), os.W_OK | os.X_OK)


def failed(task: Task) -> bool:
    """Whether a process that was to make a task ready has ended without that."""
    process = _started.get(task)
    return process is not None and process.poll() is not None and not is_ready(task)


def ended(task: Task) -> bool:
    """Whether the process that makes a task ready has ended, well or not."""
    return _started[task].poll() is not None


def start(task: Task) -> None:
    """Have a task made ready by a process that gives way to all others, and outlives this one."""
    if task in _started and not ended(task):
        return
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(path for path in (root, os.environ.get("PYTHONPATH", "")) if path)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, task.solver, task.variant, task.budget],
        env={**os.environ, "PYTHONPATH": paths, SWITCH: "0"}, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _started[task] = process
    threading.Thread(target=process.wait, daemon=True).start()  # leaves no dead process to be waited for


def main(task: Task) -> None:
    """What that process does: one compiles at a time, and the next finds what it has left."""
    os.nice(10)
    with (folder_of_code() / "behind.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        make_ready(task)


if __name__ == "__main__":
    main(Task(*sys.argv[1:]))
