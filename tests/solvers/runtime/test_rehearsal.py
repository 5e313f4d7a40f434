"""Nothing is compiled, or loaded, once a clock runs: `prepare` has seen to all that a run comes to."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from numba import njit

from solvers.runtime.rehearsal import COMPILING, compiling_is_told, rehearse, tiny_problems

SCRIPT = """
import sys, warnings
from itertools import product
warnings.simplefilter("ignore")
import numpy as np
from numba.core.dispatcher import Dispatcher
from solvers import Budget, FactorHessian, SubsetProblem, curve, get_solver, solve, solve_together
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.exact.branch_and_bound import compile_kernels
from solvers.instances import random_problem

late, ready, compile = set(), False, Dispatcher.compile

def watched(self, signature):
    if ready and signature not in self.overloads:
        late.add(f"{self.py_func.__module__}.{self.py_func.__name__}")
    return compile(self, signature)

Dispatcher.compile = watched
HALF = {
    "per_row": lambda m, n: Budget.per_row(n // 2),
    "per_layer": lambda m, n: Budget.per_layer(m * n // 2),
    "n_of_m": lambda m, n: Budget.n_of_m(2, 4),
    "columns": lambda m, n: Budget.columns(n // 2),
}

def problems(m, n, kinds=tuple(HALF)):
    rng = np.random.default_rng(0)
    lone = m == 1  # whose curvature is its own, whoever else shares it
    for refit, kind, own, sloped in product((True, False), kinds, (False, True), (False, True)):
        if lone and own != sloped:
            continue
        problem = random_problem(m, n, HALF[kind](m, n), seed=0, refit=refit)
        H = problem.hessian.dense(0)
        gradient = 0.1 * rng.standard_normal((m, n)) if sloped else None
        H = np.stack([H] * m) if own else H
        yield SubsetProblem(problem.W, H, problem.budget, refit=refit, gradient=gradient)
    for refit, sloped in product((True, False), (False, True)):  # what takes doubled precision
        X, W = rng.standard_normal((3, n)), rng.standard_normal((m, n))
        factors = [FactorHessian(A, 1e-9) for A in (X, X.astype(np.float32))]
        for H in (X.T @ X + 1e-9 * np.eye(n), *factors):
            gradient = W if sloped else None
            budget = HALF[kinds[0]](m, n - 1)
            yield SubsetProblem(W, H, budget, refit=refit, gradient=gradient, movable=[n - 1])

def tried(run, *args, **options):
    try:
        return run(*args, **options)
    except ValueError:  # what a solver refuses
        return None

name = sys.argv[1]
if name in ("curve", "together"):
    compile_kernels()
    ready = True
    for problem in problems(2, 8, ("per_layer",)):
        if name == "curve":
            curve(problem)
        else:
            solve_together([problem, problem])
else:
    solver = BranchAndBound(engine="batched") if name == "batched" else get_solver(name)
    for certify in (False, True):
        solver.prepare()
        if certify:
            get_solver("relaxation").prepare()
        ready = True
        for problem in problems(2, 8):
            tried(solve, problem, solver, certify=certify)
        if name in sys.argv[2:] and not certify:
            for problem in problems(1, 264, ("per_row",)):
                tried(solve, problem, solver, time_limit=1.0)
        ready = False
print(*sorted(late), sep="\\n")
"""
WIDE = ("auto", "relaxation", "local-search")
"""Solvers that come to more code where rows are wide."""


def late(name):
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, *WIDE], capture_output=True, text=True, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


@pytest.mark.parametrize("name", ["auto", "curve"])
def test_nothing_is_compiled_on_the_clock(name):
    assert late(name) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "branch-and-bound",
        "relaxation",
        "local-search",
        "batched",
        "together",
        "tabu",
        "portfolio",
        "greedy",
        "obs",
        "brute-force",
        "scip",
        "cvxpy-sdp",
        "cvxpy",
        "outer-approximation",
    ],
)
def test_nor_by_other_solvers(name):
    assert late(name) == []


def test_tiny_problems_are_of_every_kind():
    kinds = {(p.refit, p.budget.kind, p.hessian.shared) for p in tiny_problems()}
    assert len(kinds) == 16
    assert {p.budget.kind for p in tiny_problems(("joint",), ("columns",))} == {"columns"}


def test_a_solver_rehearses_once(monkeypatch):
    from solvers.heuristics.greedy import Greedy

    calls = []
    monkeypatch.setattr(Greedy, "run", lambda self, problem, control: calls.append(problem))
    solver = Greedy(memory=12345)
    rehearse(solver)
    first = len(calls)
    rehearse(Greedy(memory=12345))
    assert first == len(calls) == 21


def test_compiling_is_told_once_and_only_if_there_is_any(caplog):
    @njit
    def double(x):  # type: ignore[no-untyped-def]
        return 2 * x

    caplog.set_level(logging.INFO, logger="solvers")
    with compiling_is_told():
        np.zeros(1)
    assert caplog.messages == []
    with compiling_is_told():
        double(1)
        double(1.0)
    assert caplog.messages == [COMPILING]
    with compiling_is_told():
        double(2)
    assert caplog.messages == [COMPILING]
