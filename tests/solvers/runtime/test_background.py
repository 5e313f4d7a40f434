"""A first solve of a new installation answers without compiled code, which the next one finds compiled."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest
import torch

import cbs
from solvers import Budget, FactorHessian, Status, SubsetProblem, cold_start, solve
from solvers.auto import Auto
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.exact.brute_force import BruteForce
from solvers.instances import random_problem
from solvers.runtime import background, warming
from solvers.runtime.plain import SWITCH
from solvers.runtime.warming import Task, is_ready

TASK = Task("branch-and-bound", "joint", "per_row")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing compiled, and processes allowed."""
    for module in (background, warming):
        monkeypatch.setattr(module, "folder_of_code", lambda: tmp_path)
    monkeypatch.setattr(background, "_started", {})
    monkeypatch.setattr(cold_start, "_noted", set())
    monkeypatch.setenv(SWITCH, "1")
    return tmp_path


def problem(n=12, m=2, budget=None, **options):
    return random_problem(m, n, budget or Budget.per_row(n // 2), seed=0, **options)


def test_narrow_rows_are_solved_at_once_where_nothing_is_compiled(fresh):
    for solver in (Auto(), Auto(patience=1.0), BranchAndBound()):
        assert cold_start.suits(problem(), solver, "cpu")
        assert cold_start.suits(problem(budget=Budget.n_of_m(2, 4), refit=False), solver, "cpu")


def test_what_is_wide_or_otherwise_asked_for_waits(fresh):
    narrow = problem()
    assert not cold_start.suits(narrow, BruteForce(), "cpu")
    assert not cold_start.suits(narrow, BranchAndBound(engine="compiled"), "cpu")
    assert not cold_start.suits(narrow, Auto(), "cuda")
    assert not cold_start.suits(problem(101), Auto(), "cpu")
    assert not cold_start.suits(problem(41, refit=False), Auto(), "cpu")
    assert not cold_start.suits(problem(m=33), Auto(), "cpu")
    assert not cold_start.suits(problem(budget=Budget.columns(3)), Auto(), "cpu")
    factor = FactorHessian(narrow.W, 1.0)
    assert not cold_start.suits(SubsetProblem(narrow.W, factor, narrow.budget), Auto(), "cpu")


def test_nothing_is_started_where_it_must_not_be(fresh, monkeypatch):
    monkeypatch.setenv(SWITCH, "0")
    assert not cold_start.suits(problem(), Auto(), "cpu")
    monkeypatch.setenv(SWITCH, "1")
    monkeypatch.setattr(background.os, "access", lambda *_: False)
    assert not cold_start.suits(problem(), Auto(), "cpu")
    monkeypatch.undo()


def test_what_is_ready_is_noted_for_these_sources_alone(fresh, monkeypatch):
    assert not is_ready(TASK)
    warming.note_ready(TASK)
    assert is_ready(TASK)
    assert not is_ready(Task("branch-and-bound", "selection", "per_row"))
    assert not cold_start.suits(problem(), Auto(), "cpu")
    monkeypatch.setattr(warming, "_release", lambda: "another")
    assert not is_ready(TASK)


@pytest.mark.parametrize("name", ["auto", "branch-and-bound"])
def test_what_was_compiled_ahead_is_not_done_without_until_it_is_deleted(fresh, name):
    files = warming.make_ready(Task(name, "joint", "per_row"))
    for solver in (Auto(), BranchAndBound()):
        assert not cold_start.suits(problem(), solver, "cpu")
        assert cold_start.suits(problem(refit=False), solver, "cpu")
    warming.forget(files)
    assert not cold_start.suits(problem(), Auto(), "cpu")
    warming.forget(set())
    assert cold_start.suits(problem(), Auto(), "cpu")


def test_a_process_that_fails_is_not_started_again_and_leaves_nothing(fresh, monkeypatch):
    monkeypatch.setattr(background.sys, "executable", "/bin/false")
    background.start(TASK)
    for _ in range(500):
        if background.ended(TASK):
            break
        time.sleep(0.02)
    assert background.failed(TASK)
    assert not cold_start.suits(problem(), Auto(), "cpu")
    assert not psutil.pid_exists(background._started[TASK].pid)  # nor is it left for dead


@pytest.fixture
def never_done(fresh, monkeypatch, tmp_path):
    """Nothing compiled, and a process that does not come to an end with it."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 600\n")
    python.chmod(0o755)
    monkeypatch.setattr(background.sys, "executable", str(python))
    yield
    for process in background._started.values():
        process.kill()


def test_patience_is_for_compiled_code(never_done):
    assert solve(problem(), Auto(patience=0.0)).status is Status.PATIENCE
    assert is_ready(TASK)  # so the search was begun anew


def layers_that_waited(method):
    """By name, in a pruning of a small network."""
    seen = []
    network = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).double()
    result = cbs.prune(
        network, torch.randn(40, 6, dtype=torch.float64), sparsity=0.5, method=method, scope="row",
        callback=seen.append,
    )  # fmt: skip
    assert result.sparsity == pytest.approx(0.5)
    return {step.layer for step in seen if step.stage == "compile" and step.layer}


def test_a_pruning_waits_only_for_what_its_searches_take(never_done):
    assert layers_that_waited("joint") == set()
    assert layers_that_waited("obc") == {"0"}  # what its second layer takes is there by then
    assert layers_that_waited("obc") == set()


SCRIPT = """
import json, sys
from solvers import Budget, solve
from solvers.instances import random_problem
found = solve(random_problem(2, 8, Budget.per_row(4), seed=0))
print(json.dumps([found.status.value, found.value, found.bound, found.stats["engine"]]))
"""


@pytest.mark.slow
def test_the_second_solve_of_an_installation_is_compiled(tmp_path):
    environment = {**os.environ, SWITCH: "1", "NUMBA_CACHE_DIR": str(tmp_path)}

    def answer():
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
        )
        assert run.stderr == ""
        return json.loads(run.stdout)

    first = answer()
    assert first[0] == "optimal"
    assert first[3] == "batched"
    for _ in range(3000):
        if [*tmp_path.rglob("*.ready")]:
            break
        time.sleep(0.2)
    second = answer()
    assert second[0] == "optimal"
    assert second[3] == "compiled"
    assert second[1] == pytest.approx(first[1], rel=1e-9)
