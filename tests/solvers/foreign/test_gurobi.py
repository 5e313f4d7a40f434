"""Gurobi: what its licence refuses. See also test_mixed_integer."""

import numpy as np
import pytest

from solvers import Budget, SubsetProblem, solve
from solvers.foreign.gurobi import Gurobi
from solvers.foreign.mixed_integer import licence
from tests.solvers.oracles import gram


def test_free_licence_is_refused_in_one_line():
    pytest.importorskip("gurobipy")
    rng = np.random.default_rng(0)
    n = Gurobi.free // 3 + 1
    problem = SubsetProblem(rng.standard_normal((1, n)), gram(rng, n), Budget.per_row(3))
    if licence(Gurobi)[0] != Gurobi.free:
        pytest.skip("Gurobi has another licence here")
    with pytest.raises(ValueError, match=f"{3 * n} variables") as error:
        solve(problem, "gurobi")
    assert "\n" not in str(error.value)
    assert Gurobi(strengthen=False).refuses(problem) is None
    layer = SubsetProblem(rng.standard_normal((5, 21)), gram(rng, 21), Budget.per_layer(3))
    assert "210 variables" in (Gurobi(strengthen=False).refuses(layer) or "")
    assert Gurobi().refuses(SubsetProblem(layer.W, layer.hessian, Budget.per_row(3))) is None
