"""CPLEX, COPT and Xpress: what their free licences refuse, and bounds on ill-conditioned problems."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import numpy as np
import pytest

from solvers import Budget, SubsetProblem, solve
from solvers.foreign import copt, cplex, xpress
from solvers.solve import get_solver
from tests.solvers.oracles import gram, optimum

# backend, name, inputs of the widest row that the free licence takes
WIDEST = [
    (cplex, "cplex", 142),
    (cplex, "cplex-plain", 499),
    (copt, "copt", 499),
    (copt, "copt-plain", 666),
    (xpress, "xpress", 33),
    (xpress, "xpress-plain", 49),
]
MODULES = {cplex: "cplex", copt: "coptpy", xpress: "xpress"}
BACKENDS = {backend: name for backend, name in MODULES.items() if importlib.util.find_spec(name)}
WIDEST = [each for each in WIDEST if each[0] in BACKENDS]
if not BACKENDS:
    pytest.skip("none of cplex, coptpy, xpress is installed", allow_module_level=True)


def need(backend: ModuleType) -> None:
    size, reason = backend.licence()
    if size == 0:
        pytest.skip(reason)


@pytest.mark.parametrize(("backend", "name", "widest"), WIDEST, ids=[name for _, name, _ in WIDEST])
def test_refuses_in_one_line_just_what_the_licence_forbids(backend, name, widest):
    need(backend)
    if backend.licence()[0] != backend.FREE:
        pytest.skip("another licence than the free one is here")
    solver, rng = get_solver(name), np.random.default_rng(0)

    problem = SubsetProblem(rng.standard_normal((1, widest)), gram(rng, widest), Budget.per_row(1))
    solution = solve(problem, solver, time_limit=1.0)  # taken, and not refused by the wheel after all
    assert solution.bound <= solution.value
    larger = SubsetProblem(rng.standard_normal((1, widest + 1)), np.eye(widest + 1), Budget.per_row(1))
    with pytest.raises(ValueError, match="licence") as error:
        solve(larger, solver)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", [16, 31, 126])
@pytest.mark.parametrize("backend", BACKENDS, ids=BACKENDS.values())
def test_bounds_stay_below_the_optimum_of_ill_conditioned_problems(backend, seed):
    """A wrong bound shows as one above the value of a mask, or above the optimum."""
    need(backend)
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((5, 7)) @ rng.standard_normal((7, 7))
    W = rng.standard_normal((2, 7)) * np.exp(rng.standard_normal((2, 7)))
    problem = SubsetProblem(W, X.T @ X + 10.0 ** rng.integers(-4, -1) * np.eye(7), Budget.per_layer(6))
    solution = solve(problem, backend.__name__.rsplit(".", 1)[1], gap=0.0)
    best = optimum(problem)
    assert solution.bound <= best
    assert solution.value == pytest.approx(best, rel=1e-6)
    assert solution.gap < 1e-4
    assert "bound_above_value" not in solution.stats
