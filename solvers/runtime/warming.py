"""Compiled code made ready ahead of the first solve, one kind of problem after another on all cores.

What is shared among kinds is compiled by whoever comes to it first; others wait for it and take it from the
folder where it is kept (`solvers.runtime.kept`). Which kinds of problems are ready is noted in files beside
the code, whose names have a digest of all sources, versions and the processor.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from solvers.problem import SubsetProblem
from solvers.runtime.caches import folder_of_code, spare_full_disks
from solvers.runtime.kept import SUFFIX, Kept, versions
from solvers.runtime.parallel import workers
from solvers.runtime.rehearsal import VARIANTS, rehearse_arithmetic, tiny_problems

logger = logging.getLogger(__name__)

USUAL = ("branch-and-bound", "portfolio", "relaxation")
"""Solvers that `auto` hands problems to."""
WIDENED, WIDE = ("per_row", "n_of_m"), 128
"""Budgets of whose rows wide ones take code of their own, and inputs of such rows."""
READY = ".ready"
"""Of a file that notes that code for a kind of problem is there."""


@dataclass(frozen=True)
class Task:
    """A solver, and the kind of problem it is made ready for.

    Attributes:
        solver: its name.
        variant: `joint` or `selection`; empty for all, and for what no tiny problem comes to.
        budget: kind of budget; empty as well.
    """

    solver: str
    variant: str = ""
    budget: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.solver, self.variant, self.budget) if part)


def tasks(solvers: Sequence[str] = USUAL, kinds: Sequence[str] = ()) -> list[Task]:
    """What there is to make ready.

    Args:
        solvers: names of installed solvers.
        kinds: variants and kinds of budgets to make them ready for; of either none named are all. Without
            any, code that no small problem comes to is made ready, too.

    Raises:
        ValueError: an unknown solver or kind.
    """
    from solvers.solve import get_solver

    found = []
    known = {*VARIANTS}
    for name in solvers:
        solver = get_solver(name)
        known |= {*solver.budgets}
        for variant in [each for each in solver.variants if each in kinds or not {*VARIANTS} & {*kinds}]:
            budgets = [each for each in solver.budgets if each in kinds or not {*kinds} - {*VARIANTS}]
            found += [Task(name, variant, budget) for budget in budgets]
    if unknown := {*kinds} - known:
        raise ValueError(f"kind {min(unknown)!r}: not one of {', '.join(sorted(known))}")
    return found if kinds else [*found, *(Task(name) for name in solvers)]


def perform(todo: Sequence[Task]) -> Iterator[tuple[Task, set[Path]]]:
    """Do tasks on the machine's cores; every one as it is done, with the files of code that it took.

    Args:
        todo: the tasks; those for all problems should come last, when others have done most of it.
    """
    with ProcessPoolExecutor(min(workers(), max(len(todo), 1)), get_context("spawn")) as pool:
        waiting = {pool.submit(make_ready, task): task for task in todo}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def make_ready(task: Task) -> set[Path]:
    """Compile here what a task names, or load what is kept of it; the files that it took."""
    from solvers.solve import get_solver

    solver = get_solver(task.solver)
    spare_full_disks()
    rehearse_arithmetic()
    if task.variant:
        for problem in tiny_problems((task.variant,), (task.budget,)):
            solver.prepare(problem)
            if task.budget in WIDENED:  # of which a first solve of many inputs may have come here
                solver.prepare(_widened(problem))
    else:
        solver.prepare()
    note_ready(task)
    return {*Kept.used, _note(task)}


def _widened(problem: SubsetProblem) -> SubsetProblem:
    """A problem of the same kind with so many inputs that it takes what only wide rows take."""
    W = np.tile(problem.W, (1, WIDE // problem.n))
    return SubsetProblem(W, np.eye(WIDE), problem.budget, refit=problem.refit)


def is_ready(task: Task) -> bool:
    """Whether a task has been done by these sources, on such a processor, and nobody has deleted its code."""
    return _note(task).exists()


def note_ready(task: Task) -> None:
    """Note that a task has been done."""
    with suppress(OSError):
        _note(task).touch()


def _note(task: Task) -> Path:
    """The file that says so; what is ready for `auto` is what branch and bound takes."""
    if task.solver == "auto":
        task = replace(task, solver="branch-and-bound")
    name = "-".join((task.solver, task.variant, task.budget, _release()))
    return folder_of_code() / f"{name}{READY}"


@cache
def _release() -> str:
    """A digest of the sources, and of what their code depends on."""
    from numba.core.registry import cpu_target

    digest = hashlib.sha256()
    sources = Path(__file__).parents[1]
    for path in sorted(sources.rglob("*.py")):
        digest.update(str(path.relative_to(sources)).encode() + path.read_bytes())
    made = (cpu_target.target_context.codegen().magic_tuple(), sys.version_info[:3], *versions())
    digest.update(repr(made).encode())
    return digest.hexdigest()[:16]


def kept() -> dict[Path, int]:
    """Bytes of every file of machine code that is kept."""
    found = {}
    for path in folder_of_code().glob(f"*{SUFFIX}"):
        with suppress(OSError):
            found[path] = path.stat().st_size
    return found


def forget(but: set[Path]) -> int:
    """Delete machine code that is kept, and the notes that it is ready; how many files of code.

    Args:
        but: the files to leave.
    """
    gone = 0
    for path in {*folder_of_code().glob(f"*{READY}")} - but:
        path.unlink(missing_ok=True)
    for path in {*kept()} - but:
        with suppress(OSError):
            path.unlink()
            path.with_suffix(".lock").unlink(missing_ok=True)
            gone += 1
    return gone
