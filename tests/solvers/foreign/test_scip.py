"""SCIP: what its strengthened model saves, and what it refuses. See also test_mixed_integer."""

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, get_solver, solve
from solvers.foreign.scip import Scip
from tests.solvers.oracles import digits_rows, gram


def test_strengthening_pays():
    pytest.importorskip("pyscipopt")
    rng = np.random.default_rng(5)
    problem = SubsetProblem(rng.standard_normal((1, 20)), gram(rng, 20), Budget.per_row(15))
    strong, plain = solve(problem, "scip"), solve(problem, "scip-plain")
    assert strong.value == pytest.approx(plain.value, rel=1e-4)
    assert strong.stats["nodes"] < plain.stats["nodes"]


def test_it_agrees_with_branch_and_bound_on_rows_of_a_real_layer():
    pytest.importorskip("pyscipopt")
    problem = digits_rows(rows=2, inputs=28, prune=18)
    found = solve(problem, "scip")
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(solve(problem, "branch-and-bound").value, rel=2e-4)


def test_scip_refuses_what_it_would_never_finish(rng):
    problem = SubsetProblem(rng.standard_normal((40, 20)), np.eye(20), Budget.per_layer(3))
    assert "4000 variables" in (Scip().refuses(problem) or "")
    assert Scip().refuses(SubsetProblem(problem.W, problem.hessian, Budget.per_row(3))) is None


def test_a_missing_solver_names_its_extra(monkeypatch):
    monkeypatch.setattr(Scip, "installed", classmethod(lambda cls: False))
    with pytest.raises(ValueError, match=r"pyscipopt: pip install"):
        get_solver("scip")
