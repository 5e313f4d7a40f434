"""Exported models: other solvers read them, and reach the optimum of the instance."""

import importlib.util
import re

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.foreign import copt, cplex, xpress
from solvers.foreign.copt import Copt
from solvers.foreign.cplex import Cplex
from solvers.foreign.gurobi import Gurobi
from solvers.foreign.mixed_integer import licence
from solvers.foreign.xpress import Xpress
from solvers.instances import export
from tests.solvers.oracles import BUDGETS, make_problem, optimum


def by_scip(path):
    from pyscipopt import Model

    model = Model()
    model.hideOutput()
    model.setParam("limits/gap", 0.0)
    model.readProblem(path)
    model.optimize()
    return model.getObjVal()


def by_gurobi(path):
    import gurobipy as gp

    with gp.Env(params={"OutputFlag": 0, "MIPGap": 0.0}) as env, gp.read(path, env=env) as model:
        model.optimize()
        return model.ObjVal


def by_cplex(path):
    with cplex._silent() as model:
        model.read(path)
        model.parameters.mip.tolerances.mipgap.set(0.0)
        model.solve()
        return model.solution.get_objective_value()


def by_copt(path):
    model = copt._environment().createModel()
    for name in ("Logging", "LogToConsole", "RelGap"):
        model.setParam(name, 0)
    model.read(path)
    model.solve()
    return model.objval


def by_xpress(path):
    model = xpress._problem()
    model.setControl("miprelstop", 0.0)
    model.readProb(path)
    model.optimize()
    return model.attributes.objval


READERS = {
    "pyscipopt": by_scip, "gurobipy": by_gurobi, "cplex": by_cplex, "coptpy": by_copt, "xpress": by_xpress,
}  # fmt: skip
LICENCES = {"gurobipy": Gurobi, "cplex": Cplex, "coptpy": Copt, "xpress": Xpress}


@pytest.fixture(params=[name for name in READERS if importlib.util.find_spec(name)])
def read(request):
    if request.param in LICENCES and licence(LICENCES[request.param])[0] == 0:
        pytest.skip(licence(LICENCES[request.param])[1])
    return READERS[request.param]


@pytest.mark.parametrize("split", [False, True], ids=["plain", "split"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("ending", ["mps", "lp"])
def test_other_solvers_read_the_same_optimum(rng, tmp_path, capfd, read, ending, refit, split):
    for budget, movable in (("columns", ()), ("per_layer", (5,))):
        problem = make_problem(rng, BUDGETS[budget], refit=refit, gradient=True, movable=movable)
        path = tmp_path / f"{budget}.{ending}"
        unit = export(path, problem, split=split)
        assert unit * read(str(path)) == pytest.approx(optimum(problem), rel=5e-4)
    capfd.readouterr()


@pytest.mark.parametrize("ending", ["mps", "lp"])
def test_numbers_read_back_bit_for_bit(rng, tmp_path, ending):
    problem = make_problem(rng, Budget.per_row(2), m=1, n=5, refit=False)
    path = tmp_path / f"model.{ending}"
    unit = export(path, problem)
    text = path.read_text()
    assert float(re.search(r"cost = (\S+) times", text)[1]) == unit
    A = problem.W[0][:, None] * problem.hessian.dense(0) * problem.W[0] / unit
    A = 0.5 * (A + A.T)
    for i in range(5):
        for j in range(i, 5):
            shown = A[i, j] if ending == "mps" or i == j else 2.0 * A[i, j]
            pattern = {
                "mps": rf"x_0_{i} x_0_{j} (\S+)",
                "lp": rf"([+-] \S+) x_0_{i} " + (r"\^2" if i == j else rf"\* x_0_{j}\n"),
            }[ending]
            assert float(re.search(pattern, text)[1].replace(" ", "")) == shown


def test_sections_of_the_split(rng, tmp_path):
    problem = make_problem(rng, Budget.per_layer(5))
    sizes = {}
    for split in (False, True):
        export(tmp_path / "model.mps", problem, split=split)
        text = (tmp_path / "model.mps").read_text()
        sizes[split] = text.count("QCMATRIX")
        assert "QMATRIX\n" in text
    assert sizes == {False: 0, True: problem.W.size}


def test_an_unknown_ending_is_refused(tmp_path):
    problem = SubsetProblem(np.ones((1, 3)), np.eye(3), Budget.per_row(1))
    with pytest.raises(ValueError, match=r"model\.nl.*must end in \.mps or \.lp"):
        export(tmp_path / "model.nl", problem)
    assert not list(tmp_path.iterdir())
