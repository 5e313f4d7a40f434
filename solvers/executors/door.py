"""`executor()`: from a setting such as `processes:4` or `dask:tcp://host:8786` to an executor."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl

from solvers.executors.base import Workers
from solvers.runtime.parallel import workers as cores

SCHEMES = ("processes", "dask", "tcp", "tls", "ray", "slurm")
"""What a setting begins with."""
NEEDS = {
    "dask": ("distributed", "dask"),
    "tcp": ("distributed", "dask"),
    "tls": ("distributed", "dask"),
    "ray": ("ray", "ray"),
    "slurm": ("dask_jobqueue", "slurm"),
}
"""Package that a scheme needs, and the extra that installs it."""
LENT = "given:"
"""What the words for an executor begin with that was not made of a setting."""
FORMS = "processes, processes:4, dask:tcp://host:8786, ray, ray://host:10001, slurm:queue"


def executor(
    spec: str, *, workers: int | None = None, threads: int = 1, memory: float | None = None, **options: Any
) -> Workers:
    """An executor whose calls run in processes of their own, on this machine or on a cluster.

    Args:
        spec: `processes` or `processes:4`, this machine; `dask:tcp://host:8786` or `tcp://host:8786`, a Dask
            cluster by the address of its scheduler; `ray` (the cluster that this machine belongs to, or one
            of its own) or `ray://host:10001`; `slurm:queue?cores=4&walltime=01:00:00`, jobs of a queue. All
            but Slurm's take `?threads=4&memory=8000` at the end, for the arguments of these names.
        workers: processes, or jobs on Slurm; by default as many as this machine has cores for. A Dask or Ray
            cluster has as many as it has.
        threads: that a call may take.
        memory: MiB that a call may hold, unless it says itself; None for no limit.
        **options: on Slurm, those of `dask_jobqueue.SLURMCluster`.

    Raises:
        ValueError: an unknown setting (with the nearest), a bad count, a missing package, or a cluster that
            can't be reached: in one line, before any work.
    """
    if not isinstance(spec, str) or not spec:
        raise ValueError(f"executor must be a text such as {FORMS}, got {spec!r}")
    scheme = _scheme(spec)
    rest = spec[len(scheme) :].removeprefix(":")
    if scheme != "slurm":
        rest, _, query = rest.partition("?")
        for name, told in parse_qsl(query, keep_blank_values=True):
            if name not in ("threads", "memory"):
                raise ValueError(f"executor {spec!r}: unknown option {name!r}; write threads or memory")
            if not told.isdecimal():
                raise ValueError(f"executor {spec!r}: {name} must be a whole number, got {told!r}")
            threads, memory = (int(told), memory) if name == "threads" else (threads, float(told))
    for name, count in (("workers", workers), ("threads", threads)):
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise ValueError(f"executor {spec!r}: {name} must be a whole number from 1, got {count!r}")
    if memory is not None and (
        isinstance(memory, bool) or not isinstance(memory, int | float) or memory <= 0
    ):
        raise ValueError(f"executor {spec!r}: memory must be MiB, a positive number, got {memory!r}")
    if options and scheme != "slurm":
        raise ValueError(f"executor {spec!r} takes no option {next(iter(options))!r}; only slurm has options")
    if scheme in NEEDS and find_spec(NEEDS[scheme][0]) is None:
        package, extra = NEEDS[scheme]
        raise ValueError(
            f"executor {spec!r} needs {package}: pip install 'combinatorial-brain-surgeon[{extra}]'"
        )
    if scheme == "processes":
        from solvers.executors.processes import Processes

        return Processes(spec, _count(spec, rest, workers, threads), threads, memory)
    if scheme == "slurm":
        from solvers.executors.on_slurm import slurm

        return slurm(spec, rest, workers, threads, memory, options)
    if workers is not None:
        raise ValueError(f"executor {spec!r} has as many workers as its cluster; leave workers={workers} out")
    if scheme == "ray":
        from solvers.executors.on_ray import RayCluster

        return RayCluster(spec, rest, threads, memory)
    from solvers.executors.on_dask import connect

    return connect(spec, rest if scheme == "dask" else f"{scheme}:{rest}", threads, memory)


@contextmanager
def borrowed(given: str | Executor | None) -> Iterator[Executor | None]:
    """An executor that was given, left open, or one made of a setting, closed at the end; None stays None.

    Raises:
        ValueError: as `executor`; or what is given is no executor.
    """
    check_kind(given)
    if not isinstance(given, str):
        yield given
        return
    made = executor(given)
    try:
        yield made
    finally:
        made.shutdown(cancel_futures=True)  # what nobody waits for any more


def _scheme(spec: str) -> str:
    """What a setting begins with."""
    scheme = re.split("[:?]", spec)[0]
    if scheme not in SCHEMES:
        near = difflib.get_close_matches(scheme, SCHEMES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"write one of {FORMS}"
        raise ValueError(f"unknown executor {spec!r}; {hint}")
    return scheme


def check_kind(given: object) -> None:
    """Raise ValueError, in one line, for what is no setting, no executor and not None; nothing is started."""
    if isinstance(given, str) and not given.startswith(LENT):
        _scheme(given)
    if given is not None and not isinstance(given, str | Executor):
        raise ValueError(
            f"executor must be a text such as {FORMS}, or a concurrent.futures.Executor, got {given!r}"
        )


def spec_of(given: str | Executor | None) -> str | None:
    """An executor in words: its setting, or for one that was made otherwise `given:` and its class."""
    if given is None or isinstance(given, str):
        return given
    return given.spec if isinstance(given, Workers) else LENT + type(given).__name__


def _count(spec: str, told: str, workers: int | None, threads: int) -> int:
    """How many processes: as the setting or the argument says, else as many as there are cores for."""
    if spec.startswith("processes:") and not (told.isdecimal() and int(told) >= 1):
        raise ValueError(f"executor {spec!r}: write a whole number of processes, such as processes:4")
    if told and workers is not None and int(told) != workers:
        raise ValueError(f"executor {spec!r} has {told} processes, and workers={workers} says otherwise")
    most = 64 * (os.cpu_count() or 1)
    count = int(told) if told else workers or max(1, cores() // threads)
    if count > most:
        raise ValueError(
            f"executor {spec!r}: {count} processes are too many for this machine; at most {most}"
        )
    return count
