"""Slurm: jobs of a queue, each a Dask worker, for as long as the executor is open (by dask-jobqueue)."""

from __future__ import annotations

import difflib
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl

from solvers.executors.on_dask import DaskCluster

KNOWN = (
    "queue", "account", "cores", "memory", "walltime", "interface", "local_directory", "log_directory",
    "job_name", "python", "job_extra_directives", "job_script_prologue", "worker_extra_args",
)  # fmt: skip
"""Options of `dask_jobqueue.SLURMCluster` that are passed on."""
MEMORY = 4096
"""MiB of a job where nobody says."""


def slurm(
    spec: str, rest: str, workers: int | None, threads: int, memory: float | None, options: Mapping[str, Any]
) -> DaskCluster:
    """An executor whose workers are jobs, which end with it.

    Args:
        spec: what it is made from.
        rest: of the setting, after the colon: `queue?cores=4&walltime=01:00:00`.
        workers: jobs; by default 1.
        threads: that a call may take.
        memory: MiB that a call may hold.
        options: more options by name.

    Raises:
        ValueError: an unknown option (with the nearest), a bad count, or no Slurm here.
    """
    asked = settings(spec, rest, threads, memory, options)
    if shutil.which("sbatch") is None:
        raise ValueError(
            f"executor {spec!r}: there is no sbatch here; run this where jobs are handed in to Slurm"
        )
    cluster = make_cluster(asked, threads)
    try:
        jobs = workers or 1
        cluster.scale(jobs=jobs)
        made = DaskCluster(
            spec,
            import_module("distributed").Client(cluster, set_as_default=False),
            threads,
            memory,
            cluster.close,
        )
    except BaseException:
        cluster.close()
        raise
    made.workers = jobs * (asked["cores"] // threads)
    return made


def make_cluster(asked: Mapping[str, Any], threads: int) -> Any:
    """The cluster, without jobs as yet; `.job_script()` is what will be handed in."""
    at_once = f"--nthreads={asked['cores'] // threads}"
    more = {**asked, "worker_extra_args": [*asked.get("worker_extra_args", []), at_once]}
    return import_module("dask_jobqueue").SLURMCluster(
        processes=1, scheduler_options={"dashboard": False}, **more
    )


def settings(
    spec: str, rest: str, threads: int, memory: float | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What a job asks for, from the setting and from options by name.

    Raises:
        ValueError: an unknown option (with the nearest), or fewer cores than a call takes threads.
    """
    queue, _, query = rest.partition("?")
    told: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True)) | dict(options)
    for name in told:
        if name not in KNOWN:
            near = difflib.get_close_matches(name, KNOWN, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(KNOWN)}"
            raise ValueError(f"executor {spec!r}: unknown option {name!r}; {hint}")
    for name in ("job_extra_directives", "job_script_prologue", "worker_extra_args"):
        if isinstance(told.get(name), str):
            told[name] = [told[name]]
    if queue:
        told["queue"] = queue
    cores = str(told.get("cores", threads))
    if not cores.isdecimal() or int(cores) < threads:
        raise ValueError(
            f"executor {spec!r}: cores must be a whole number, at least the {threads} threads of a call, "
            f"got {told['cores']!r}"
        )
    each = MEMORY if memory is None else int(memory) + 512
    told["cores"] = int(cores)
    told.setdefault("memory", f"{each * (int(cores) // threads)}MiB")
    told.setdefault("python", sys.executable)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if paths:
        where = shlex.quote(os.pathsep.join(paths))
        told["job_script_prologue"] = [f"export PYTHONPATH={where}", *told.get("job_script_prologue", [])]
    return told
