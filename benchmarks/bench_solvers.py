"""Every solver on the same fixed instances: `make bench`."""

import pytest

from solvers import Budget, available, solve
from solvers.instances import random_problem
from solvers.solve import check_support, get_solver

INSTANCES = {
    "row16": random_problem(1, 16, Budget.per_row(12), seed=0),
    "rows8x32": random_problem(8, 32, Budget.per_row(24), seed=0),
    "rows8x32 selection": random_problem(8, 32, Budget.per_row(24), seed=0, refit=False),
}


@pytest.mark.parametrize("instance", INSTANCES)
@pytest.mark.parametrize("solver", [name for name, facts in available().items() if facts["installed"]])
def test_solve(benchmark, solver, instance):
    problem = INSTANCES[instance]
    try:
        check_support(get_solver(solver), problem)
    except ValueError as reason:
        pytest.skip(str(reason))
    solution = benchmark.pedantic(
        solve, args=(problem, solver), kwargs={"time_limit": 10.0, "seed": 0}, rounds=2, warmup_rounds=1
    )
    benchmark.extra_info |= {"value": solution.value, "gap": solution.gap, "status": solution.status.value}
