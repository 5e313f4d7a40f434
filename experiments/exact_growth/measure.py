"""Solves of instance files, timed: a process that reads a job a line and answers a line, both JSON.

It needs nothing but the package `solvers`, of whatever release `PYTHONPATH` names, so that two states of the
project can be measured on the same numbers.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from solvers import Solution, Solver, SubsetProblem, checker, get_solver, solve
from solvers.control import SEARCH
from solvers.instances import load
from solvers.solution import Progress

GAP = 1e-4
WARM = 2.0
"""CPU seconds of a solve that is thrown away, so that what is compiled for a size is there."""
SAME = 1e-6
"""Share of its value by which a mask may differ from the final one and count as it."""


class Clock:
    """A callback that stops a search after so many seconds of the process's CPU, or of wall time.

    Attributes:
        cpu: CPU seconds at the last word of the search.
    """

    def __init__(self, limit: float, clock: str) -> None:
        self.start, self.limit, self.clock, self.cpu = time.process_time(), limit, clock, 0.0

    def __call__(self, progress: Progress) -> bool:
        self.cpu = time.process_time() - self.start
        return self.clock == "cpu" and self.cpu >= self.limit


def measure(
    file: str, solver: str, options: dict[str, Any], limit: float, clock: str, certify: bool, mask: float
) -> dict[str, Any]:
    """One solve of an instance file, and of what it proves once more with a certificate, which is checked.

    Args:
        file: of the instance.
        solver: by name.
        options: its fields.
        limit: seconds for the search.
        clock: `cpu` or `wall`.
        certify: whether what is proven shall be certified.
        mask: seconds that the portfolio gets for a mask to start from; not counted.
    """
    problem = load(file)
    chosen = replace(get_solver(solver), **options)
    warm(problem, chosen)
    start = solve(problem, "portfolio", time_limit=mask).mask if mask else None
    found, cpu = timed(problem, chosen, limit, clock, warm_start=start)
    answer = facts(found, cpu)
    if certify and found.gap <= GAP:
        answer |= certified(problem, chosen, file, limit, clock)
    return answer


def warm(problem: SubsetProblem, solver: Solver) -> None:
    key = (solver.name, problem.n, problem.m > 1, problem.refit, problem.budget.kind)
    if key not in WARMED:
        WARMED.add(key)
        timed(problem, solver, WARM, "cpu")


WARMED: set[tuple[Any, ...]] = set()


def timed(
    problem: SubsetProblem, solver: Solver, limit: float, clock: str, **options: Any
) -> tuple[Solution, float]:
    """A solution and its CPU seconds."""
    stop = Clock(limit, clock)
    wall = limit if clock == "wall" else None
    if options.get("certify") and wall is not None:
        wall /= SEARCH  # so that the search has as long as without
    found = solve(problem, solver, time_limit=wall, gap=GAP, callback=stop, **options)
    return found, time.process_time() - stop.start


def facts(found: Solution, cpu: float) -> dict[str, Any]:
    held = [p.seconds for p in found.trace if p.bounds.upper <= found.value * (1 + SAME)]
    return {
        "status": found.status.value, "value": found.value, "bound": found.bound, "gap": found.gap,
        "seconds": found.seconds, "cpu_seconds": cpu, "nodes": int(found.stats.get("nodes") or 0),
        "splits": int(found.stats.get("splits") or 0), "held": held[0] if held else None,
        "root": next((p.bounds.gap for p in found.trace if p.bounds.gap < 1.0), None),
    }  # fmt: skip


def certified(problem: SubsetProblem, solver: Solver, file: str, limit: float, clock: str) -> dict[str, Any]:
    """What the checker says of the certificate of a second solve; its size, and times beside the search's."""
    stop = Clock(limit, clock)
    wall = limit / SEARCH if clock == "wall" else None
    found = solve(problem, solver, time_limit=wall, gap=GAP, callback=stop, certify=True)
    if found.certificate is None:
        return {"certificate": str(found.stats.get("certificate"))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "certificate"
        found.certificate.save(path)
        size, start = path.stat().st_size, time.process_time()
        try:
            verdict = checker.verify(path, file)
        except checker.Refuted as error:
            return {"certificate": f"refuted: {error}", "bytes": size}
    return {
        "certificate": "verified", "bytes": size, "check_seconds": time.process_time() - start,
        "search_seconds": stop.cpu, "proven_gap": verdict.gap, "leaves": verdict.leaves,
    }  # fmt: skip


def main() -> None:
    """Answer jobs until there are no more; what goes wrong is an answer, too."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever solvers print
    for line in sys.stdin:
        try:
            answer = measure(**json.loads(line))
        except Exception as error:  # peers raise classes of their own
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
