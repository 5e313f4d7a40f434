"""PyTorch stays out of what needs none of it: in processes of their own, as this one has imported it."""

import subprocess
import sys

import numpy as np
import pytest

from solvers import Budget, SubsetProblem, get_solver
from solvers.runtime.tensors import NARROW, load_torch, on_cpu, tensors_help

HEAVY = ("torch", "scipy.optimize", "scipy.linalg", "numba", "sklearn", "cvxpy", "ortools", "matplotlib")
SOLVED = """
import sys
sys.modules["torch"] = None  # as if it were not installed
import solvers
from solvers.instances import random_problem
for budget in (solvers.Budget.per_row(10), solvers.Budget.pools([0, 1] * 8, 3)):
    found = solvers.solve(random_problem(2, 16, budget, seed=0))
    print(found.status.value, found.gap <= 1e-4)
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_packages_imports_nothing_heavy():
    found = run(f"import sys, solvers, cbs; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert found.strip() == "[]"


def test_small_problems_are_solved_where_there_is_no_pytorch():
    assert run(SOLVED).splitlines() == ["optimal True"] * 2


def problem(n):
    return SubsetProblem(np.ones((1, n)), np.eye(n), Budget.per_row(1))


def test_what_may_make_tensors_says_so():
    narrow, wide = problem(4), problem(NARROW + 1)
    assert not tensors_help(narrow, "cpu")
    assert not tensors_help(narrow, "cpu:0")
    assert tensors_help(narrow, "cuda")
    assert tensors_help(wide, "cpu")
    assert not on_cpu("cuda:1")
    assert not get_solver("auto").makes_tensors(narrow, "cpu")
    assert get_solver("alps").makes_tensors(narrow, "cpu")
    assert type(get_solver("branch-and-bound"))(engine="batched").makes_tensors(narrow, "cpu")


def test_a_missing_pytorch_is_one_line(monkeypatch):
    monkeypatch.setattr("solvers.runtime.tensors.torch", type("Absent", (), {"__getattr__": absent})())
    with pytest.raises(ImportError, match=f"rows of more than {NARROW} inputs.* pip install torch"):
        load_torch()


def absent(self, name):
    raise ImportError("No module named 'torch'")
