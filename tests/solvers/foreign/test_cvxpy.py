"""CVXPY as an exact solver: its back ends agree with enumeration. See also test_mixed_integer."""

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, solve
from solvers.control import Control
from solvers.foreign import cvxpy
from solvers.foreign.cvxpy import BACK_ENDS, Cvxpy, Worker, in_cones
from solvers.foreign.in_turn import in_turn
from solvers.foreign.models import joint_model
from solvers.foreign.programme import programme
from tests.solvers.oracles import BUDGETS, make_problem, optimum

INSTALLED = [name for name in BACK_ENDS if Cvxpy(back_end=name).refuses(
    SubsetProblem(np.ones((1, 2)), np.eye(2), Budget.per_row(1))) is None]  # fmt: skip


@pytest.mark.parametrize("strengthen", [True, False], ids=["strengthened", "plain"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("name", INSTALLED)
def test_every_back_end_finds_the_optimum(rng, name, refit, strengthen):
    problem = make_problem(rng, BUDGETS["columns"], n=5, refit=refit, gradient=not refit, kind="stacked")
    best = optimum(problem)
    solution = solve(problem, Cvxpy(strengthen=strengthen, back_end=name), gap=2e-3)
    assert solution.value == pytest.approx(best, rel=2e-3)
    assert solution.bound <= best
    assert solution.status is Status.OPTIMAL
    assert "bound_above_value" not in solution.stats


def test_the_programme_in_cones_is_the_programme(rng):
    problem = make_problem(rng, Budget.per_layer(5))
    part = in_turn(problem, Control()).parts[0]
    model = joint_model(part, None)
    matrices = programme(model, problem, part.mask, factored=True)
    conic = in_cones(matrices, model.reach)
    x, y = conic.start, matrices.start
    assert conic.c @ x == pytest.approx(0.5 * y @ (matrices.Q @ y) + matrices.c @ y + matrices.constant)
    assert conic.c @ x == pytest.approx(part.value / model.unit)
    V, S, Z = x[conic.cones].T
    np.testing.assert_allclose(V**2, S * Z, atol=1e-12)
    assert (conic.lower <= x + 1e-9).all()
    assert (x <= conic.upper + 1e-9).all()
    assert conic.Q.nnz == 0
    assert len(conic.names) == len(set(conic.names)) == len(conic.c)
    A, b = conic.first_tangents()
    assert (A @ x <= b + 1e-9).all()


def test_a_back_end_that_is_not_there_is_one_line(rng, monkeypatch):
    problem = make_problem(rng, Budget.per_row(3))
    with pytest.raises(ValueError, match="back_end 'CLARABEL' is not known, only SCIP, HIGHS, SCIPY, GUROBI"):
        solve(problem, Cvxpy(back_end="CLARABEL"))
    monkeypatch.setattr(cvxpy.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"back end SCIP is not installed: pip install 'pyscipopt>=5\.0'"):
        solve(problem, Cvxpy(back_end="SCIP"))


def test_the_first_back_end_installed_is_taken(monkeypatch):
    there = {"highspy", "gurobipy", "scipy"}
    monkeypatch.setattr(cvxpy.importlib.util, "find_spec", lambda name: name in there or None)
    assert Cvxpy().chosen == "HIGHS"
    there.remove("highspy")
    assert Cvxpy().chosen == "SCIPY"
    assert Cvxpy(back_end="GUROBI").chosen == "GUROBI"


def test_refuses_what_it_would_never_finish(rng):
    problem = SubsetProblem(rng.standard_normal((40, 20)), np.eye(20), Budget.per_layer(3))
    assert "3200 variables" in (Cvxpy().refuses(problem) or "")
    assert Cvxpy().refuses(SubsetProblem(problem.W, problem.hessian, Budget.per_row(3))) is None


def test_what_the_solver_inside_says_is_the_error(rng, monkeypatch):
    monkeypatch.setattr(Worker, "ask", lambda self, archive: {"error": "SolverError: no licence"})
    with pytest.raises(RuntimeError, match="failed: SolverError: no licence"):
        solve(make_problem(rng, Budget.per_row(3)), "cvxpy")


def test_a_process_that_dies_is_an_error_and_not_an_interruption(rng, monkeypatch):
    monkeypatch.setattr(Worker, "ask", lambda self, archive: None)
    with pytest.raises(RuntimeError, match="has died"):
        solve(make_problem(rng, Budget.per_row(3)), Cvxpy())


def test_a_process_is_used_again_and_replaced_once_killed(rng):
    problem = make_problem(rng, Budget.per_row(3))
    solve(problem, "cvxpy")
    (worker,) = cvxpy._idle
    solve(problem, "cvxpy-plain")
    assert cvxpy._idle == [worker]
    worker.close()
    assert solve(problem, "cvxpy").status is Status.OPTIMAL
    assert len(cvxpy._idle) == 1
    assert cvxpy._idle != [worker]
