"""SCIP on the plain and on the split-strengthened model of both variants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.foreign.in_turn import Event, InTurn
from solvers.foreign.mixed_integer import MixedInteger
from solvers.foreign.models import TOLERANCE, JointModel, SelectionModel, factor, rounded
from solvers.form.parts import Part
from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem

LIMIT = 3000
"""Most continuous and binary variables of one model."""
FEASIBILITY = 2e-7
"""Tolerance on constraints and on reduced costs. SCIP tightens it a thousandfold in trouble, and the
linear solver complains on standard error below 1e-10."""
OBJECTIVE = FEASIBILITY / TOLERANCE
"""Factor on the objective, which makes the tolerance on reduced costs `TOLERANCE` of its unit."""
SEPARATORS = ("aggregation", "clique", "gomory", "impliedbounds", "mcf", "mixing", "rlt", "zerohalf")
"""Cuts that do not pay here. With them off, few tangents a node and pseudo-cost branching, a 64-input
row takes a fifth of the time that SCIP's defaults take."""


class ScipModel(MixedInteger):
    """What both solvers below share: the model, its run, and the reading of its answers.

    Each convex part is factored, `R = L'L`, and enters as `y = L (v - a)`, `e_j >= y_j^2`: SCIP
    approximates by tangents, which are far better on one square at a time than on their sum.
    """

    requires: ClassVar[tuple[str, ...]] = ("pyscipopt",)
    wheel: ClassVar[str] = "pyscipopt>=5.0"

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        rows = problem.m if problem.budget.kind in ("per_layer", "columns") else 1
        count = 5 * rows * problem.n
        if count > LIMIT:
            return f"its model would have about {count} variables, more than {LIMIT}; try branch-and-bound"
        return None

    def solve_model(self, model: JointModel | SelectionModel, part: Part, turns: InTurn, gap: float) -> bool:
        """See `MixedInteger.solve_model`."""
        return _solve(model, part, turns, gap)


@dataclass(frozen=True)
class Scip(ScipModel):
    """The strengthened model: rotated cones `v_i^2 <= s_i z_i` over the best split."""

    name: ClassVar[str] = "scip"
    summary: ClassVar[str] = "SCIP on the split-strengthened (perspective) model"
    strengthened: ClassVar[bool] = True


@dataclass(frozen=True)
class ScipPlain(ScipModel):
    """The plain big-M model, as a general solver would be given it."""

    name: ClassVar[str] = "scip-plain"
    summary: ClassVar[str] = "SCIP on the plain big-M model, for comparison"
    strengthened: ClassVar[bool] = False


def _solve(numbers: JointModel | SelectionModel, part: Part, turns: InTurn, gap: float) -> bool:
    from pyscipopt import Eventhdlr, Model
    from pyscipopt.scip import PY_SCIP_EVENTTYPE as EVENT
    from pyscipopt.scip import PY_SCIP_PARAMSETTING as SETTING

    model = Model()
    model.hideOutput()
    model.setHeuristics(SETTING.OFF)
    parameters = {
        "misc/catchctrlc": False,
        "randomization/randomseedshift": turns.control.seed % 2**31,
        "numerics/feastol": FEASIBILITY,
        "numerics/dualfeastol": FEASIBILITY,
        "limits/gap": gap,
        "separating/maxrounds": 1,
        "separating/maxcuts": 20,
        "branching/pscost/priority": 100_000,
    }
    parameters |= {f"separating/{name}/freq": -1 for name in SEPARATORS}
    if part.seconds is not None:
        parameters["limits/time"] = part.seconds
    for name, value in parameters.items():
        model.setParam(name, value)
    if isinstance(numbers, JointModel):
        pruned = _joint(model, part.problem, numbers, part.mask)
    else:
        pruned = _selection(model, part.problem, numbers, part.mask)

    def news(with_mask: bool) -> Event:
        mask = rounded(part.problem, pruned(model.getBestSol())) if with_mask else None
        dual = float(model.getDualbound())
        claim = -np.inf if model.isInfinity(abs(dual)) else numbers.unit * dual / OBJECTIVE - numbers.widening
        return Event(mask, claim, int(model.getNTotalNodes()))

    def solve(report: Callable[[Event], None]) -> None:
        class News(Eventhdlr):
            def eventinit(self) -> None:
                self.model.catchEvent(EVENT.BESTSOLFOUND, self)
                self.model.catchEvent(EVENT.NODESOLVED, self)

            def eventexit(self) -> None:
                self.model.dropEvent(EVENT.BESTSOLFOUND, self)
                self.model.dropEvent(EVENT.NODESOLVED, self)

            def eventexec(self, event: Any) -> None:
                report(news(event.getType() == EVENT.BESTSOLFOUND))

        model.includeEventhdlr(News(), "news", "incumbents and bounds")
        model.optimizeNogil()
        report(news(True))

    turns.watch(part, solve, model.interruptSolve)
    return bool(model.getStatus() == "timelimit")


Reader = Callable[[Any], NDArray[np.float64]]


def _joint(model: Any, problem: SubsetProblem, numbers: JointModel, start: Mask) -> Reader:
    """Build the joint model and hand it the incumbent; how to read `[b, n]` pruned from a solution."""
    from pyscipopt import quicksum

    m, n = problem.W.shape
    pools = problem.pools
    z = np.array(
        [[model.addVar(vtype="B", lb=float(kept)) for kept in row] for row in numbers.kept], dtype=object
    )
    _count(model, z, pools.labels, pools.keep)
    low, high, squares = numbers.low, numbers.high, numbers.largest_square
    point = np.where(start, 0.0, problem.weights(start) / numbers.scale)
    solution = model.createSol()
    for decision, variable in np.ndenumerate(z):
        model.setSolVal(solution, variable, float(not pools.decisions(start)[decision]))
    objective: list[Any] = []
    for r in range(m):
        v = [model.addVar(lb=min(low[r, i], 0.0), ub=max(high[r, i], 0.0)) for i in range(n)]
        for i in range(n):
            keep = z[0 if pools.coupled else r, i]
            model.addCons(v[i] <= high[r, i] * keep)
            model.addCons(v[i] >= low[r, i] * keep)
            model.setSolVal(solution, v[i], point[r, i])
            if numbers.d[r, i] > 0:
                s = model.addVar(lb=0.0, ub=squares[r, i])
                model.addCons(v[i] * v[i] <= s * keep)
                a, d = numbers.a[r, i], numbers.d[r, i]
                objective.append(0.5 * d * s - d * a * v[i] + 0.5 * d * a * a)
                model.setSolVal(solution, s, point[r, i] ** 2)
        objective += _squares(model, solution, factor(numbers.R[r]), v, numbers.a[r], point[r], 2.0)
    model.setObjective(OBJECTIVE * quicksum(objective))
    model.addSol(solution)
    return lambda found: np.array([[1.0 - model.getSolVal(found, variable) for variable in row] for row in z])


def _selection(model: Any, problem: SubsetProblem, numbers: SelectionModel, start: Mask) -> Reader:
    """As `_joint`, for the selection model."""
    from pyscipopt import quicksum

    pools = problem.pools
    point = pools.decisions(start).astype(np.float64)
    x = np.array([[model.addVar(vtype="B") for _ in row] for row in point], dtype=object)
    _count(model, x, pools.labels, pools.prune)
    solution = model.createSol()
    for decision, variable in np.ndenumerate(x):
        model.setSolVal(solution, variable, point[decision])
    objective = [numbers.linear[decision] * variable for decision, variable in np.ndenumerate(x)]
    for b, R in enumerate(numbers.R):
        origin = np.zeros(len(R))
        objective += _squares(model, solution, factor(R), list(x[b]), origin, point[b], numbers.reach)
    model.setObjective(OBJECTIVE * quicksum(objective))
    model.addSol(solution)
    return lambda found: np.array([[model.getSolVal(found, variable) for variable in row] for row in x])


def _squares(
    model: Any, solution: Any, L: Array, v: list[Any], origin: Array, point: Array, reach: float
) -> list[Any]:
    """Terms `1/2 e_j` with `e_j >= (L_j (v - origin))^2`, at most `reach`; sets them in a solution."""
    from pyscipopt import quicksum

    terms = []
    top = 1.0 + 1e-6
    for row, target, value in zip(L, L @ origin, L @ (point - origin), strict=True):
        y = model.addVar(lb=-top * reach**0.5, ub=top * reach**0.5)
        e = model.addVar(lb=0.0, ub=top**2 * reach)
        model.addCons(quicksum(c * u for c, u in zip(row, v, strict=True)) - y == target)
        model.addCons(y * y <= e)
        model.setSolVal(solution, y, value)
        model.setSolVal(solution, e, value**2)
        terms.append(0.5 * e)
    return terms


def _count(model: Any, decisions: NDArray[Any], labels: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
    """`sum_pool decisions = count`."""
    from pyscipopt import quicksum

    for p, count in enumerate(counts):
        model.addCons(quicksum(decisions[labels == p].tolist()) == int(count))
