"""`cbs doctor`: what is installed and what works, on one screen, to be pasted into a report of a fault."""

from __future__ import annotations

import os
import time
from typing import Annotated, Any

from cbs.cli import output
from cbs.cli.options import OUTPUT, Json, flag
from cbs.report.environment import PACKAGES, WHEELS, environment

FAILS, WRONG = "fails", "is wrong"


def doctor(
    try_solvers: Annotated[
        bool, flag("--solve", panel=OUTPUT, help="Have every installed solver solve a tiny problem, too.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Tell versions, machine, caches and solvers, for a report of a fault.

    Exit status 1 if `--solve` finds a solver that fails or is wrong.

    For example:

    `cbs doctor --solve`
    """
    import solvers

    found: dict[str, Any] = {"environment": environment(), "device": _device(), "memory": _memory()}
    found["compiled code"] = _compiled()
    known = solvers.available()
    found["installed"] = [name for name, facts in known.items() if facts["installed"]]
    found["not installed"] = [name for name, facts in known.items() if not facts["installed"]]
    if try_solvers:
        found["solvers"] = {name: _tried(name, known[name]) for name in found["installed"]}
    bad = [name for name, told in found.get("solvers", {}).items() if told.startswith((FAILS, WRONG))]
    if as_json:
        output.print_json(found)
    else:
        output.print_table(("", ""), _lines(found))
    return 1 if bad else 0


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts, a line each."""
    facts = found["environment"]
    lines = [
        ("cbs", facts[PACKAGES[0]]),
        ("python", f"{facts['python']}, {facts['platform']}"),
        ("packages", ", ".join(f"{name} {facts[name]}" for name in PACKAGES[1:] if name in facts)),
        ("wheels", ", ".join(f"{name} {version}" for name, version in facts["wheels"].items())),
        ("missing", ", ".join(name for name in WHEELS if name not in facts["wheels"]) or "none"),
        ("processors", f"{facts['processors']}, of which torch uses {facts['threads']}"),
        ("memory", found["memory"]),
        ("device", found["device"]),
        ("compiled code", found["compiled code"]),
    ]
    if "solvers" in found:
        lines += list(found["solvers"].items())
    else:
        lines.append(("solvers", ", ".join(found["installed"])))
    return [*lines, ("not installed", ", ".join(found["not installed"]) or "none")]


def _device() -> str:
    """What torch may compute on beside the processor."""
    import torch

    if not torch.cuda.is_available():
        return "cpu alone"
    names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    return f"{torch.cuda.device_count()} x {', '.join(sorted(names))}"


def _memory() -> str:
    """Memory of the machine, and what is free."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        whole, free = (page * os.sysconf(name) / 2**30 for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # elsewhere than on POSIX
        return "unknown"
    return f"{whole:.1f} GiB, {free:.1f} GiB unused"


def _compiled() -> str:
    """Where compiled code is kept, and how much there is of it."""
    from solvers.runtime.caches import folder_of_code
    from solvers.runtime.warming import kept

    files = kept()
    return f"{len(files)} files of {sum(files.values()) / 2**20:.1f} MiB in {folder_of_code()}"


def _tried(name: str, facts: dict[str, Any]) -> str:
    """Whether a solver's answer to a tiny problem is right, held against every mask in turn."""
    import solvers
    from solvers.instances import random_problem

    budget = solvers.Budget.per_row(3) if "per_row" in facts["budgets"] else solvers.Budget.columns(3)
    problem = random_problem(2, 6, budget, refit="joint" in facts["variants"], seed=0)
    try:
        if reason := solvers.get_solver(name).refuses(problem):
            return f"not tried: {reason}"
        best = solvers.solve(problem, "brute-force").value
        started = time.perf_counter()
        solution = solvers.solve(problem, name, time_limit=60.0)
        seconds = time.perf_counter() - started
    except Exception as error:  # whatever another's code raises
        return f"{FAILS}: {type(error).__name__}: {' '.join(str(error).split())}"
    slack = 1e-6 * abs(best)
    if not solution.bound <= best + slack or not best <= solution.value + slack:
        return f"{WRONG}: value {solution.value:.7g}, bound {solution.bound:.7g}, the best is {best:.7g}"
    if facts["proves"] == "optimality" and solution.value > best + 1e-3 * abs(best):
        return f"{WRONG}: value {solution.value:.7g}, and the best is {best:.7g}"
    return f"works: {solution.status.value}, {seconds:.2f} s"
