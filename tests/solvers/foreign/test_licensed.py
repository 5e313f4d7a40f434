"""CPLEX, COPT and Xpress: what their free licences refuse, and bounds on ill-conditioned problems."""

from __future__ import annotations

import numpy as np
import pytest

from solvers import Budget, SubsetProblem, solve
from solvers.foreign.copt import Copt
from solvers.foreign.cplex import Cplex
from solvers.foreign.mixed_integer import licence
from solvers.foreign.xpress import Xpress
from tests.solvers.oracles import gram, optimum

# solver, inputs of the widest row that the free licence takes
WIDEST = [
    (Cplex(), 142),
    (Cplex(strengthen=False), 499),
    (Copt(), 499),
    (Copt(strengthen=False), 666),
    (Xpress(), 33),
    (Xpress(strengthen=False), 49),
]
WIDEST = [(solver, widest) for solver, widest in WIDEST if solver.installed()]
if not WIDEST:
    pytest.skip("none of cplex, coptpy, xpress is installed", allow_module_level=True)


def need(solver):
    size, reason = licence(type(solver))
    if size == 0:
        pytest.skip(reason)


@pytest.mark.parametrize(("solver", "widest"), WIDEST, ids=[solver.name for solver, _ in WIDEST])
def test_refuses_in_one_line_just_what_the_licence_forbids(solver, widest):
    need(solver)
    if licence(type(solver))[0] != solver.free:
        pytest.skip("another licence than the free one is here")
    rng = np.random.default_rng(0)

    problem = SubsetProblem(rng.standard_normal((1, widest)), gram(rng, widest), Budget.per_row(1))
    solution = solve(problem, solver, time_limit=1.0)  # taken, and not refused by the wheel after all
    assert solution.bound <= solution.value
    larger = SubsetProblem(rng.standard_normal((1, widest + 1)), np.eye(widest + 1), Budget.per_row(1))
    with pytest.raises(ValueError, match="licence") as error:
        solve(larger, solver)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", [16, 31, 126])
@pytest.mark.parametrize(
    "solver", [each for each, _ in WIDEST if each.strengthen], ids=lambda each: each.name
)
def test_bounds_stay_below_the_optimum_of_ill_conditioned_problems(solver, seed):
    """A wrong bound shows as one above the value of a mask, or above the optimum."""
    need(solver)
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((5, 7)) @ rng.standard_normal((7, 7))
    W = rng.standard_normal((2, 7)) * np.exp(rng.standard_normal((2, 7)))
    problem = SubsetProblem(W, X.T @ X + 10.0 ** rng.integers(-4, -1) * np.eye(7), Budget.per_layer(6))
    solution = solve(problem, solver, gap=0.0)
    best = optimum(problem)
    assert solution.bound <= best
    assert solution.value == pytest.approx(best, rel=1e-6)
    assert solution.gap < 1e-4
    assert "bound_above_value" not in solution.stats
