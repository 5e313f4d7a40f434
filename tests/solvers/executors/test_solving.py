"""Searches on an executor give what they give here, whatever happens to its workers."""

import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import psutil
import pytest

from solvers import Budget, Status, executor, solve, solve_together
from solvers.executors.solving import Task, solve_all
from tests.solvers.oracles import make_problem


@pytest.fixture(scope="module")
def pool():
    with executor("processes:1") as made:
        yield made


def problems(rng, sizes=((4, 12), (3, 9)), refit=True):
    return [make_problem(rng, Budget.per_layer(m * n // 2), m=m, n=n, refit=refit) for m, n in sizes]


def same(a, b):
    """Whether two answers are the same to the last bit."""
    masks = [np.array_equal(x, y) for x, y in zip(a.masks, b.masks, strict=True)]
    return all(masks) and (a.bound, a.values, a.status) == (b.bound, b.values, b.status)


@pytest.mark.parametrize("refit", [True, False])
def test_a_shared_budget_is_the_same_on_workers(pool, rng, refit):
    given = problems(rng, refit=refit)
    here, there = solve_together(given), solve_together(given, executor=pool)
    assert same(here, there)
    assert here.stats["nodes"] == there.stats["nodes"] > 0


@pytest.mark.slow
def test_its_certificate_is_the_same(pool, rng):
    given = problems(rng)
    here, there = solve_together(given, certify=True), solve_together(given, certify=True, executor=pool)
    assert here.certificate.bound == there.certificate.bound
    assert here.bound == there.bound


@pytest.mark.parametrize(
    "budget", [Budget.per_row(prune=10), Budget.per_layer(prune=31), Budget.n_of_m(2, 4)]
)
def test_rows_of_one_problem_are_the_same_on_workers(pool, rng, budget):
    problem = make_problem(rng, budget, m=3, n=20)
    here, there = solve(problem), solve(problem, executor=pool)
    assert np.array_equal(here.mask, there.mask)
    assert (here.bound, here.status) == (there.bound, there.status)
    assert here.stats["nodes"] == there.stats["nodes"]


def test_several_problems_are_solved_whole(pool, rng):
    given = problems(rng)
    tasks = [Task(problem, solver, {"seed": 3}) for problem in given for solver in ("auto", "tabu")]
    for task, found in zip(tasks, solve_all(pool, tasks), strict=True):
        here = solve(task.problem, task.solver, seed=3)
        assert np.array_equal(found.mask, here.mask)
        assert (found.bound, found.solver) == (here.bound, here.solver)


@pytest.mark.slow
def test_a_time_limit_and_a_callback_end_it_with_valid_bounds(pool, rng):
    given = problems(rng, sizes=((12, 48), (8, 40)))
    found = solve_together(given, executor=pool, time_limit=0.5)
    assert found.status is Status.TIME_LIMIT
    assert found.bound < found.value
    found = solve_together(given, executor=pool, callback=lambda progress: progress.seconds > 0.3)
    assert found.status is Status.INTERRUPTED
    assert found.bound < found.value
    problem = make_problem(rng, Budget.per_row(prune=24), m=8, n=48)
    found = solve(problem, executor=pool, time_limit=0.5)
    assert found.status is Status.TIME_LIMIT
    assert 0.0 < found.bound < found.value


@pytest.mark.slow
def test_a_worker_killed_on_the_way_changes_nothing(pool, rng):
    given = problems(rng, sizes=((6, 20), (4, 16)))
    here = solve_together(given)
    killed = []

    def kill():
        time.sleep(0.15)
        for child in psutil.Process(os.getpid()).children():
            if "solvers.executors.child" in " ".join(child.cmdline()):
                killed.append(child.pid)
                child.kill()
                return

    thread = threading.Thread(target=kill)
    thread.start()
    there = solve_together(given, executor=pool)
    thread.join()
    assert killed
    assert same(here, there)


@pytest.mark.slow
def test_a_pool_of_another_kind_does_as_well(rng):
    given = problems(rng)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as plain:
        assert same(solve_together(given), solve_together(given, executor=plain))
