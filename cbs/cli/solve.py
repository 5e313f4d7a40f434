"""`cbs solve` and `cbs bound`: one instance file, one answer."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

import solvers
from cbs.cli import output
from cbs.cli.options import HOW, LIMITS, OUTPUT, File, Json, Limit, Seed, option, solver_names
from cbs.cli.watch import Watch
from solvers import instances

if TYPE_CHECKING:
    from solvers.problem import Mask

LARGEST = 1 << 20
"""Characters of a warm start that are read, beside `PER_WEIGHT` for every weight of the instance."""
PER_WEIGHT = 32


def solve(
    file: File,
    solver: Annotated[
        str,
        option(
            "--solver",
            "-s",
            panel=HOW,
            metavar="NAME",
            help="See `cbs solvers`.",
            autocompletion=solver_names,
        ),
    ] = "auto",
    time_limit: Limit = None,
    gap: Annotated[
        float,
        option(
            panel=LIMITS,
            metavar="NUMBER",
            help="Stop once (value - bound) / |value| is proven to be this small.",
        ),
    ] = 1e-4,
    seed: Seed = 0,
    warm_start: Annotated[
        Path | None,
        option(panel=HOW, metavar="RESULT.json", help="Start from the mask that `--json` printed."),
    ] = None,
    certificate: Annotated[
        Path | None,
        option(panel=OUTPUT, metavar="OUT", help="Write a proof of the bound, for `cbs verify`."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        option(
            panel=OUTPUT,
            metavar="FILE",
            help="Keep the search here about every half minute, and go on from it if it is there. It stays "
            "when the search is done, and gives the answer again; delete it to start afresh.",
        ),
    ] = None,
    node_limit: Annotated[
        int | None,
        option(panel=LIMITS, metavar="NODES", help="Of the branch and bound; no limit if absent."),
    ] = None,
    memory_limit: Annotated[
        str | None,
        option(
            panel=LIMITS,
            metavar="SIZE",
            help="Of the branch and bound's trees, as 500M or 16G; 4G if absent.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Solve an instance: the best mask found, and a bound on how much better any mask can be.

    The incumbent, bound and gap are shown on standard error as they move. Ctrl-C stops the search, prints the
    best found so far and exits with status 130.

    For example:

    `cbs solve layer.npz --time-limit 60`

    `cbs solve layer.npz --solver branch-and-bound --gap 1e-6 --json > layer.json`

    `cbs solve layer.npz --certificate layer.cert && cbs verify layer.cert layer.npz`

    `cbs solve layer.npz --checkpoint layer.search --memory-limit 8G`
    """
    chosen = _limited(solvers.get_solver(solver), node_limit, memory_limit)
    output.check_places([file, warm_start], certificate=certificate, checkpoint=checkpoint)
    problem = instances.read_problem(file)
    warm = None if warm_start is None else _mask(warm_start, problem)
    return _run(
        problem, chosen, as_json, certificate,
        time_limit=time_limit, gap=gap, seed=seed, warm_start=warm, certify=certificate is not None,
        checkpoint=checkpoint,
    )  # fmt: skip


def bound(file: File, time_limit: Limit = None, seed: Seed = 0, as_json: Json = False) -> int:
    """A certified lower bound on the loss increase of every mask of an instance, whatever its size.

    The mask that the relaxation rounds to is reported with it, so that the gap says what the bound is worth.

    For example:

    `cbs bound layer.npz --json`
    """
    return _run(
        instances.read_problem(file),
        solvers.get_solver("relaxation"),
        as_json,
        time_limit=time_limit,
        seed=seed,
    )


def _limited(solver: solvers.Solver, node_limit: int | None, memory_limit: str | None) -> solvers.Solver:
    """The solver with limits of its own, for those that have them."""
    limits: dict[str, Any] = {}
    if node_limit is not None:
        if node_limit < 0:
            raise ValueError(f"--node-limit must be at least 0, got {node_limit}")
        limits["node_limit"] = node_limit
    if memory_limit is not None:
        limits["memory_limit"] = _bytes(memory_limit)
    if not limits:
        return solver
    from solvers.auto import Auto
    from solvers.exact.branch_and_bound import BranchAndBound

    if isinstance(solver, Auto):
        return replace(solver, search=replace(solver.search, **limits))
    if isinstance(solver, BranchAndBound):
        return replace(solver, **limits)
    option = "--" + next(iter(limits)).replace("_", "-")
    raise ValueError(f"{option} is for the solvers auto and branch-and-bound, not {solver.name}")


def _bytes(size: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", size.strip(), re.IGNORECASE)
    found = 0.0 if match is None else float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ")
    if not 1 <= found < math.inf:
        raise ValueError(f"--memory-limit must be a size such as 500M or 16G, got {size[:40]!r}")
    return int(found)


def _run(
    problem: solvers.SubsetProblem,
    solver: solvers.Solver,
    as_json: bool,
    certificate: Path | None = None,
    **options: Any,
) -> int:
    with output.telling_interruption(), Watch() as watch:
        try:
            solution = solvers.solve(problem, solver, callback=watch, **options)
        except KeyboardInterrupt:
            if watch.mask is None:
                raise
            solution = solvers.Solution.judge(
                problem, watch.mask, watch.bounds.lower, solvers.Status.INTERRUPTED,
                gap=0.0, seconds=watch.seconds, solver=solver.name,
            )  # fmt: skip
    saves = {}
    if certificate is not None and solution.certificate is not None:
        saves[certificate] = partial(solution.certificate.save, certificate)
    status = output.deliver(partial(_show, solution, as_json), saves)
    if "checkpoint_error" in solution.stats:
        status = output.complain(
            f"checkpoint {str(options['checkpoint'])!r} is not up to date: it could not be written "
            f"({solution.stats['checkpoint_error']})"
        )
    unproven = certificate is not None and solution.certificate is None
    if unproven and "certificate" in solution.stats:
        return status or output.complain(f"no certificate is written: {solution.stats['certificate']}")
    if unproven:
        output.remark("interrupted before the certificate was complete; none is written")
    elif solution.certificate is not None:
        lacks = solution.bound - solution.certificate.bound
        if lacks > 1e-6 * abs(solution.bound):  # what shows in the digits that are printed
            proven, told = (output.number(x) for x in (solution.certificate.bound, solution.bound))
            output.remark(f"the certificate proves a bound of {proven}; {told} is the solver's word")
    return status or (130 if unproven or solution.status is solvers.Status.INTERRUPTED else 0)


def _show(solution: solvers.Solution, as_json: bool) -> None:
    facts: dict[str, Any] = {
        "solver": solution.solver,
        "status": solution.status.value,
        "value": solution.value,
        "bound": solution.bound,
        "gap": solution.gap,
        "seconds": solution.seconds,
        "nodes": max([solution.stats.get("nodes", 0), *(step.nodes for step in solution.trace)]),
    }
    if as_json:
        output.print_json(facts | {"pruned": [np.flatnonzero(row) for row in solution.mask]})
        return
    facts["status"] = f"{solution.status.value}: {solution.status.remedy}"
    facts["value"], facts["bound"] = output.number(solution.value), output.number(solution.bound)
    facts["gap"], facts["seconds"] = output.percent(solution.gap), f"{solution.seconds:.2f}"
    facts["pruned"] = f"{int(solution.mask.sum())} of {solution.mask.size} weights"
    for name, fact in facts.items():
        print(f"{name:<8} {fact}")


def _mask(path: Path, problem: solvers.SubsetProblem) -> Mask:
    mask = np.zeros(problem.W.shape, dtype=bool)
    try:
        with path.open(encoding="utf-8") as file:  # perhaps an endless one
            rows = json.loads(file.read(LARGEST + PER_WEIGHT * mask.size))["pruned"]
        if not isinstance(rows, list) or len(rows) != problem.m:
            raise ValueError("other rows")
        for r, columns in enumerate(rows):
            if not isinstance(columns, list):
                raise ValueError("no list of columns")
            if not all(type(column) is int and 0 <= column < problem.n for column in columns):
                raise ValueError("other columns")
            mask[r, columns] = True
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(
            f"warm start {str(path)!r} does not list the pruned columns of each of {problem.m} rows; "
            "give what `cbs solve --json` printed for this instance"
        ) from None
    return mask
