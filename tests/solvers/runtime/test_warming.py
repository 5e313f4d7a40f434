"""What is made ready ahead is what a first solve takes; the rest can be deleted."""

import os
import subprocess
import sys

import pytest

from solvers.budget import GROUPS, KINDS, UNITS
from solvers.runtime import warming
from solvers.runtime.caches import folder_of_code
from solvers.runtime.kept import SUFFIX
from solvers.runtime.warming import Task, forget, kept, perform, tasks


def test_tasks_are_every_kind_that_a_solver_takes_and_then_the_rest():
    every = tasks(("relaxation",))
    kinds = [(variant, budget) for variant in ("joint", "selection") for budget in (*KINDS, GROUPS, UNITS)]
    assert [(task.variant, task.budget) for task in every] == [*kinds, ("", "")]
    assert {task.solver for task in tasks()} == {"branch-and-bound", "portfolio", "relaxation"}


def test_kinds_are_of_variants_and_budgets():
    assert tasks(("greedy",), ("joint", "per_row")) == [Task("greedy", "joint", "per_row")]
    assert {task.variant for task in tasks(("greedy",), ("per_row",))} == {"joint", "selection"}
    assert {task.budget for task in tasks(("greedy",), ("joint",))} == {*KINDS, GROUPS, UNITS}
    with pytest.raises(ValueError, match="kind 'wide': not one of columns, groups, joint"):
        tasks(("greedy",), ("joint", "wide"))
    with pytest.raises(ValueError, match="nobody"):
        tasks(("nobody",))


def test_tasks_are_done_in_other_processes_which_tell_their_files():
    todo = [Task("greedy", "joint", "per_row"), Task("greedy", "selection", "n_of_m")]
    done = dict(perform(todo))
    assert {*done} == {*todo}
    for task, files in done.items():
        code = {path for path in files if path.suffix == SUFFIX}
        assert code
        assert code <= {*kept()}
        assert warming.is_ready(task)
    assert any(path.name.startswith("eliminate-") for path in done[todo[0]])


def test_what_was_not_taken_is_forgotten(monkeypatch, tmp_path):
    monkeypatch.setattr(warming, "folder_of_code", lambda: tmp_path)
    new, old = (tmp_path / f"{name}{SUFFIX}" for name in ("new", "old"))
    for path in (new, old, old.with_suffix(".lock"), tmp_path / "other.txt"):
        path.write_bytes(b"1234")
    assert kept() == {new: 4, old: 4}
    assert forget({new}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, "other.txt"]
    assert forget({new}) == 0


SOLVE = """
import sys
from numba.core.dispatcher import Dispatcher
compile, compiled, on = Dispatcher.compile, set(), False
def watched(self, signature):
    if on and signature not in self.overloads:
        compiled.add(self.py_func.__name__)
    return compile(self, signature)
Dispatcher.compile = watched
import solvers
from solvers import Budget, solve
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.instances import random_problem
module = sys.modules["solvers.solve"]
reduce = module.reduce
def begin(problem):  # the first thing that a solve does once its clock runs
    global on
    on = True
    return reduce(problem)
module.reduce = begin
variant, budget, m, n = sys.argv[1:]
budgets = {"per_row": Budget.per_row(5), "n_of_m": Budget.n_of_m(2, 4), "columns": Budget.columns(4),
           "per_layer": Budget.per_layer(9)}
problem = random_problem(int(m), int(n), budgets[budget], seed=0, refit=variant == "joint")
solver = BranchAndBound(grouped=8) if m == "1" else "auto"
print(solve(problem, solver).status.value, *sorted(compiled))
"""


@pytest.mark.parametrize(
    "kind",
    [
        ("joint", "per_row", "2", "12"),
        ("selection", "per_row", "2", "12"),
        ("joint", "n_of_m", "2", "12"),
        ("joint", "columns", "2", "12"),
        ("selection", "per_layer", "2", "12"),
        ("joint", "per_row", "1", "16"),
    ],
)
def test_a_solve_makes_its_own_kind_ready_before_its_clock_starts(kind):
    run = subprocess.run(
        [sys.executable, "-c", SOLVE, *kind], capture_output=True, text=True, check=True, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.stdout.split() == ["optimal"]


def test_code_lies_in_one_folder():
    assert all(path.parent == folder_of_code() for path in kept())


READIED = """
from solvers.relaxations.split import compile_lone_rows
from solvers.runtime.warming import Task, make_ready

for budget in ("columns", "per_row"):
    make_ready(Task("branch-and-bound", "joint", budget))
    print(compile_lone_rows.cache_info().misses)
"""


def test_a_kind_that_is_ready_is_so_for_wide_rows_too():
    run = subprocess.run(
        [sys.executable, "-c", READIED], capture_output=True, text=True, check=True, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.stdout.split() == ["0", "1"]
