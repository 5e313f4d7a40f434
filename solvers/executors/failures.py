"""How a call ends that was not let run to its end: past a limit, or with its process.

Each says its limit in one line and is what `except TimeoutError`, `except MemoryError` and `except
RuntimeError` catch. They travel between machines like any exception.
"""

from __future__ import annotations

import signal


class Ended(Exception):
    """A call was ended from outside.

    Attributes:
        seconds: wall time that the call had run.
        cpu_seconds: processor time of its processes, as last seen.
        memory: MiB that its processes held at most, as far as was seen.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory: float = 0.0


class TimeLimitExceeded(Ended, TimeoutError):
    """A call ran past its `seconds`, and was ended."""


class MemoryLimitExceeded(Ended, MemoryError):
    """The processes of a call held more than its `memory`, and were ended."""


class ProcessDied(Ended, RuntimeError):
    """The process that ran a call is gone: killed, crashed, or out of itself; the call may be made again."""


def manner_of_death(status: int | None) -> str:
    """What an exit status says, in words: `killed by SIGSEGV`, `left with status 3`."""
    if status is None:
        return "is gone"
    if status >= 0:
        return f"left with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
