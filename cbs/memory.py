"""How much memory a pruning may take: a limit that is stated, and what is left of it at any time.

What grows with the data is taken in batches that fit (`cbs.network.activations`), what grows with the layers
is computed some layers at a time and kept on disk (`cbs.curvature.stored`); what can't be had in parts, such
as gradients of every sample, is refused before it is begun. The limit is about the memory that a process
holds (its resident set) beyond what it held when the call began: network, data and libraries are the
caller's.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

GIB = 1 << 30
DEFAULT = 2.5
"""GiB that a pruning may take where nobody says how much; less where the machine has not twice as much."""
WEIGHT_BYTES = 100
"""What it may take for every parameter of a larger network."""
ENTRY = 64
"""Bytes for a number of what is computed sample by sample, with the copies that are made of it."""
LEAST = 1 / 64
"""GiB below which nothing can be done."""


@dataclass(frozen=True)
class Limit:
    """A limit of memory.

    Attributes:
        bytes: that may be taken.
        held: bytes that the process held before.
    """

    bytes: float
    held: float

    @property
    def left(self) -> float:
        """Bytes that may still be taken; a small part of the limit at least, so that work can go on."""
        return max(self.bytes - (resident() - self.held), self.bytes / 16)


_LIMIT: ContextVar[Limit | None] = ContextVar("limit", default=None)


def check_memory(memory: object) -> None:
    """Raise ValueError for a limit that is neither None nor a number of GiB that something fits in."""
    number = isinstance(memory, Real) and not isinstance(memory, bool)
    if memory is not None and not (number and LEAST <= memory < float("inf")):  # type: ignore[operator]
        raise ValueError(f"memory must be GiB, at least {LEAST}, or None for {DEFAULT:g}, got {memory!r}")


def limit() -> Limit:
    """The limit of the call at work; of code that runs outside of one, the default from here on."""
    return _LIMIT.get() or _new(None, 0)


def _new(memory: float | None, parameters: int) -> Limit:
    if memory is not None:
        return Limit(float(memory) * GIB, resident())
    wanted = max(DEFAULT * GIB, float(WEIGHT_BYTES * parameters))
    return Limit(min(wanted, 0.5 * machine_memory()), resident())


@contextmanager
def limited(memory: float | None, parameters: int = 0) -> Iterator[Limit]:
    """Hold a limit while the body runs; within another limit that one holds.

    Args:
        memory: GiB, or None for the default.
        parameters: numbers in the network, of which the default takes account.
    """
    known = _LIMIT.get()
    token = _LIMIT.set(_new(memory, parameters) if known is None else known)
    try:
        yield limit()
    finally:
        _LIMIT.reset(token)


def within_memory(function: F) -> F:
    """A function of a network whose option `memory` is the limit under which it runs.

    Raises:
        ValueError: when it is called with none that can be met.
    """

    @functools.wraps(function)
    def run(model: Any, *args: Any, **options: Any) -> Any:
        check_memory(options.get("memory"))
        counted = model.parameters() if callable(getattr(model, "parameters", None)) else ()
        there = [values for values in counted if type(values).__name__ != "UninitializedParameter"]
        with limited(options.get("memory"), sum(values.numel() for values in there)):
            return function(model, *args, **options)

    return run  # type: ignore[return-value]


def memory_stats(batch: int) -> dict[str, float]:
    """What a result tells of the limit: GiB, and the most samples that were in a batch."""
    return {"limit": round(limit().bytes / GIB, 3), "batch": batch}


def free_memory() -> float:
    """Bytes that can still be taken, of the limit and of the machine."""
    return min(limit().left, machine_memory())


def at_once(most: int) -> int:
    """How many numbers of what it computes sample by sample a pass may hold: `most`, or as many as fit.

    `ENTRY` bytes are counted for each: gradients as they come and laid out in rows, and rows in double
    precision beside what is made of them.
    """
    return max(1, min(most, int(free_memory() / ENTRY)))


def machine_memory() -> float:
    """Bytes that programs can still have; infinite where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            (line,) = [line for line in file if line.startswith("MemAvailable:")]
        return 1024.0 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return float("inf")


def resident() -> float:
    """Bytes of memory that this process holds; the most that it ever held where the system says only that."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return float(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:  # not on this system
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
