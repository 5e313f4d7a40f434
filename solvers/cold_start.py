"""First solves that do not wait for compiled code.

Where nothing is compiled yet, narrow rows are searched as Python and in tensors: in seconds, where compiling
takes a minute. A process beside it compiles for the next solve; if that is done first, the search goes on
compiled from the mask that it has. Statuses and bounds are as honest in either way.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import replace

from solvers.auto import Auto
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.hessian import BlockDiagonalHessian, FactorHessian
from solvers.problem import SubsetProblem
from solvers.runtime import background, warming
from solvers.runtime.plain import SWITCH
from solvers.runtime.rehearsal import kind, rehearse_arithmetic
from solvers.runtime.tensors import load_torch, on_cpu
from solvers.runtime.warming import Task, is_ready
from solvers.solver import Solver

log = logging.getLogger(__name__)

INPUTS = {True: 100, False: 40}
"""Inputs of joint and of selected rows up to which a search in tensors mostly ends within seconds."""
ROWS = 32
"""Rows up to which it does."""
_noted: set[Task] = set()
"""What this process has compiled or loaded, and noted where others ask."""
BUDGETS = ("per_row", "n_of_m")
"""Budgets of whose rows it finds the optimum one by one."""


def suits(problem: SubsetProblem, solver: Solver, device: str) -> bool:
    """Whether a solve without compiled code is called for, and can be had."""
    usual = replace(solver, patience=None) if isinstance(solver, Auto) else solver
    if usual not in (Auto(), BranchAndBound()) or not on_cpu(device) or problem.budget.kind not in BUDGETS:
        return False
    wide = problem.n > INPUTS[problem.refit] or problem.m > ROWS
    task = _task(problem)
    if wide or task in _noted or isinstance(problem.hessian, FactorHessian | BlockDiagonalHessian):
        return False
    if not background.allowed():
        return False
    if is_ready(task) or background.failed(task) or importlib.util.find_spec("torch") is None:
        return False
    load_torch()
    return True


def begin(problem: SubsetProblem) -> Callable[[], bool]:
    """Have compiled, by another process, what a problem takes; whether that has ended, when it is called."""
    task = _task(problem)
    log.info("solved without compiled code, which another process compiles (%s=0 to wait)", SWITCH)
    try:
        background.start(task)
    except OSError as error:
        log.info("no process can be started: %s", error)
        return lambda: False
    return lambda: background.ended(task)


def make_ready(problem: SubsetProblem, solver: Solver, device: str) -> None:
    """Compile here what a problem takes, or load what is kept, and note that this is done."""
    rehearse_arithmetic()
    solver.prepare(problem if on_cpu(device) else None)
    task, own = _task(problem, solver), isinstance(solver, Auto | BranchAndBound)
    if task in _noted or (own and not background.allowed()):
        return
    if own and not is_ready(task):
        warming.note_ready(task)
    _noted.add(task)


def is_made(problem: SubsetProblem, solver: Solver) -> bool:
    """Whether what a problem takes was compiled before, so that `make_ready` loads it at most."""
    task = _task(problem, solver)
    return task in _noted or is_ready(task)


def _task(problem: SubsetProblem, solver: Solver | None = None) -> Task:
    """What has to be compiled; without a solver, for branch and bound, as for `auto`."""
    variant, budget = kind(problem)
    name = "branch-and-bound" if solver is None or isinstance(solver, Auto) else solver.name
    return Task(name, variant, budget)
