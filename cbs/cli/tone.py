"""How much a command says beside its answer: nothing, its progress, or all that is logged."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

PACKAGES = ("cbs", "solvers")
"""Whose log is shown."""
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


def quiet() -> bool:
    """Whether nothing but answers and complaints is wanted."""
    return _quiet.get()


class _ToStandardError(logging.Handler):
    """Writes to what standard error is at the time: a live display may stand in for it."""

    started = time.time()

    def emit(self, record: logging.LogRecord) -> None:
        """See logging."""
        seconds = f"{record.created - self.started:8.1f} s   {record.name}: "
        head = "cbs: " if record.levelno >= logging.INFO else seconds
        print(f"{head}{record.getMessage()}", file=sys.stderr, flush=True)


@contextmanager
def speaking(*, quiet: bool = False, verbose: bool = False, no_color: bool = False) -> Iterator[None]:
    """Say as much as is wanted, until the block ends.

    Warnings of the log are always shown, `INFO` (such as that solvers are compiled) unless `quiet`, and all
    of it, every pass and search, if `verbose`.

    Args:
        quiet: leave out progress and remarks; what is wrong is told in any case.
        verbose: show the log of `cbs` and `solvers` on standard error.
        no_color: as if the environment had NO_COLOR.

    Raises:
        ValueError: for quiet and verbose together.
    """
    if quiet and verbose:
        raise ValueError("--quiet and --verbose exclude one another; give one of them")
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    handler, before = _ToStandardError(level), os.environ.get("NO_COLOR")
    handler.started = time.time()
    levels = {name: logging.getLogger(name).level for name in PACKAGES}
    token = _quiet.set(quiet)
    if no_color:
        os.environ["NO_COLOR"] = "1"
    for name in PACKAGES:
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name, was in levels.items():
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).setLevel(was)
        _quiet.reset(token)
        if no_color:
            if before is None:
                del os.environ["NO_COLOR"]
            else:
                os.environ["NO_COLOR"] = before
