"""What travels between processes: functions, arguments, results and exceptions (serialization).

Pickled as Python does; what other processes can't import, because it was defined in a script or at a
prompt, is sent as code by cloudpickle.
"""

from __future__ import annotations

import pickle
import traceback
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Measured(Generic[Value]):
    """What a call gave, and what it took.

    Attributes:
        value: what the function returned.
        seconds: wall time of the function itself.
        cpu_seconds: processor time of the process, all its threads, while the function ran, and of the
            processes that it started and waited for.
        memory: MiB of physical memory that the process and those it started held at most while the function
            ran, with everything that the process had imported. Its own peak is the kernel's count (Linux);
            with its children's it is looked at a few times a second.
        host: name of the machine.
    """

    value: Value
    seconds: float
    cpu_seconds: float
    memory: float
    host: str


def dumps(what: Any) -> bytes:
    """Pickled, by value where other processes can't import it.

    Raises:
        TypeError: in one line, if it can't be sent.
    """
    try:
        made = pickle.dumps(what, protocol=pickle.HIGHEST_PROTOCOL)
        if b"__main__" not in made:
            return made
    except Exception:  # a lambda, or a function within another
        pass
    import cloudpickle

    try:
        by_value: bytes = cloudpickle.dumps(what)
    except Exception as error:
        raise TypeError(f"can't be sent to another process: {' '.join(str(error).split())}") from None
    return by_value


def loads(made: bytes | bytearray) -> Any:
    """What `dumps` pickled."""
    return pickle.loads(made)


def exception_bytes(error: BaseException) -> bytes:
    """An exception, ready to travel, with its traceback as a note; a RuntimeError if it can't travel."""
    there = "".join(traceback.format_exception(error))
    note = f"in the worker's process:\n{there.rstrip()}"
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        told = f"the function ended its process: {type(error).__name__}({error})"
        stands_in = RuntimeError(told)
    else:
        stands_in = RuntimeError(f"{type(error).__name__}: {error}")
        try:
            error.__traceback__ = error.__cause__ = error.__context__ = None
            error.add_note(note)
            made = dumps(error)
            if type(loads(made)) is type(error):
                return made
        except Exception:  # it can't be pickled, or not made again
            pass
    stands_in.add_note(note)
    return dumps(stands_in)
