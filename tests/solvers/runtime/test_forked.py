"""A process that forks after it has solved with several threads: its child solves, too."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing, sys, warnings
warnings.simplefilter("ignore")
from solvers import Budget, solve
from solvers.instances import random_problem

def work(name):
    return solve(random_problem(2, 200, Budget.per_row(100), seed=0), name, time_limit=0.5).value > 0

if __name__ == "__main__":
    assert all(map(work, sys.argv[1:]))
    with multiprocessing.get_context("fork").Pool(1) as pool:
        print(*pool.map_async(work, sys.argv[1:]).get(60))
        pool.terminate()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_forked_workers_solve_wide_problems():
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, "relaxation", "auto"], capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "2"}, check=False,
    )  # fmt: skip
    assert run.stdout.strip() == "True True", run.stderr
