"""Whether compiled functions run as Python: the way of a first solve, while they are being compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

SWITCH = "SOLVERS_COMPILE_BEHIND"
"""Environment variable: with 0 every first solve waits for compiled code, and no process compiles beside."""

_plain = ContextVar("plain", default=False)


def plain() -> bool:
    """Whether functions of `solvers.runtime.compiled` called here run as Python, and nothing is compiled."""
    return _plain.get()


@contextmanager
def plainly() -> Iterator[None]:
    """Have them run so in the block, in this thread; `side_by_side` starts no others then."""
    before = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(before)
