"""Gurobi on the plain and on the split-strengthened model of both variants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from solvers.foreign.in_turn import Event, InTurn
from solvers.foreign.mixed_integer import MixedInteger
from solvers.foreign.models import TOLERANCE, JointModel, SelectionModel
from solvers.foreign.programme import Programme, programme, size
from solvers.form.parts import Part
from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem

FREE_VARIABLES = 200
"""Most variables of a quadratic model under the licence that comes with gurobipy."""
LIMIT = 20_000
"""Most variables of one model under any licence."""


class GurobiModel(MixedInteger):
    """What both solvers below share: the model, its run, and the reading of its answers.

    The perspective enters by its tangents, see `Programme.tangents`: a few at first and more at every
    candidate solution.
    """

    requires: ClassVar[tuple[str, ...]] = ("gurobipy",)
    wheel: ClassVar[str] = "gurobipy>=11"

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        count, _ = size(problem, self.strengthened)
        most, reason = licence()
        return None if count <= most else f"its model has {count} variables; {reason}"

    def solve_model(self, model: JointModel | SelectionModel, part: Part, turns: InTurn, gap: float) -> bool:
        """See `MixedInteger.solve_model`."""
        return _solve(model, part, turns, gap, self.informed)


@dataclass(frozen=True)
class Gurobi(GurobiModel):
    """The strengthened model: the perspective of the best split."""

    name: ClassVar[str] = "gurobi"
    summary: ClassVar[str] = "Gurobi on the split-strengthened (perspective) model"
    strengthened: ClassVar[bool] = True


@dataclass(frozen=True)
class GurobiPlain(GurobiModel):
    """The plain big-M model, as a general solver would be given it.

    Attributes:
        informed: whether it gets the incumbent of our local search, and the ranges of weights that follow.
    """

    informed: bool = True

    name: ClassVar[str] = "gurobi-plain"
    summary: ClassVar[str] = "Gurobi on the plain big-M model, for comparison"
    strengthened: ClassVar[bool] = False


@cache
def licence() -> tuple[int, str]:
    """The most variables of a quadratic model under the licence at hand, and what to do about it."""
    import gurobipy as gp

    try:
        with gp.Env(params={"OutputFlag": 0}) as env, gp.Model(env=env) as probe:
            x = probe.addMVar(FREE_VARIABLES + 1)
            probe.setObjective(x @ x)
            probe.optimize()
    except gp.GurobiError as error:
        if error.errno == gp.GRB.Error.SIZE_LIMIT_EXCEEDED:
            allowed = f"gurobipy's own licence allows {FREE_VARIABLES}"
            return FREE_VARIABLES, f"{allowed}; give it a full one, or try branch-and-bound"
        return 0, f"Gurobi says: {error}"
    return LIMIT, f"at most {LIMIT} are taken; try branch-and-bound"


def _solve(numbers: JointModel | SelectionModel, part: Part, turns: InTurn, gap: float, start: bool) -> bool:
    import gurobipy as gp
    from gurobipy import GRB

    matrices = programme(numbers, part.problem, part.mask)
    parameters: dict[str, float] = {
        "OutputFlag": 0,
        "Seed": turns.control.seed % 2_000_000_000,
        "MIPGap": gap,
        "MIPGapAbs": 0.0,
        "OptimalityTol": TOLERANCE,
        "FeasibilityTol": TOLERANCE,
        "IntFeasTol": TOLERANCE,
    }
    if part.seconds is not None:
        parameters["TimeLimit"] = part.seconds
    with gp.Env(params=parameters) as env, gp.Model(env=env) as model:
        x = _build(model, matrices, start)

        def mask(values: Array) -> Mask:
            return matrices.mask(part.problem, np.asarray(values))

        def claim(dual: float) -> float:
            return numbers.unit * dual - numbers.widening if abs(dual) < GRB.INFINITY else -np.inf

        def solve(report: Callable[[Event], None]) -> None:
            def news(model: Any, where: int) -> None:
                if where == GRB.Callback.MIPSOL:
                    point = np.asarray(model.cbGetSolution(x))
                    A, b = matrices.tangents(point)
                    for i, right in enumerate(b.tolist()):
                        row = slice(*A.indptr[i : i + 2])
                        model.cbLazy(A.data[row] @ x[A.indices[row]] <= right)
                    nodes = int(model.cbGet(GRB.Callback.MIPSOL_NODCNT))
                    dual = model.cbGet(GRB.Callback.MIPSOL_OBJBND)
                    report(Event(mask(point), claim(dual), nodes))
                elif where == GRB.Callback.MIP:
                    nodes = int(model.cbGet(GRB.Callback.MIP_NODCNT))
                    report(Event(None, claim(model.cbGet(GRB.Callback.MIP_OBJBND)), nodes))

            model.optimize(news)
            found = mask(x.X) if model.SolCount else None
            report(Event(found, claim(model.ObjBound), int(model.NodeCount)))

        turns.watch(part, solve, model.terminate)
        if model.Status == GRB.INTERRUPTED and not turns.control.stopped():
            turns.control.interrupted = True  # Ctrl-C came before Python's handler was back
        return bool(model.Status == GRB.TIME_LIMIT)


def _build(model: Any, matrices: Programme, start: bool) -> Any:
    """Hand over the matrices, and the incumbent to start from; the variables."""
    types = np.where(matrices.binary, "B", "C")
    x = model.addMVar(len(matrices.c), lb=matrices.lower, ub=matrices.upper, vtype=types)
    A, b, cut = matrices.A, matrices.b, matrices.equalities
    model.addMConstr(A[:cut], x, "=", b[:cut])
    if len(b) > cut:
        model.addMConstr(A[cut:], x, "<", b[cut:])
    if len(matrices.cones):
        A, b = matrices.first_tangents()
        model.addMConstr(A, x, "<", b)
        model.Params.LazyConstraints = 1
    model.setMObjective(0.5 * matrices.Q, matrices.c, matrices.constant, x, x, x)
    if start:
        x.Start = matrices.start
    return x
