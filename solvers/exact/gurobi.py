"""Gurobi on the plain and on the split-strengthened model of both variants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.exact.in_turn import Event, InTurn
from solvers.exact.mixed_integer import MixedInteger
from solvers.exact.models import TOLERANCE, JointModel, SelectionModel, rounded
from solvers.exact.parts import Part
from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem

FREE_VARIABLES = 200
"""Most variables of a quadratic model under the licence that comes with gurobipy."""
LIMIT = 20_000
"""Most variables of one model under any licence."""
TANGENTS = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Where the first tangents touch, from the scaled weight; survivors lie within sqrt 2 of it."""
SHORT = 1e-8
"""How much too small a square may be in a solution that is accepted."""


class GurobiModel(MixedInteger):
    """What both solvers below share: the model, its run, and the reading of its answers.

    The perspective enters by its tangents, `s_i >= 2 t v_i - t^2 z_i` (Frangioni & Gentile 2006), a
    few at first and more at every candidate solution: given `v_i^2 <= s_i z_i` as cones, Gurobi 13
    claimed bounds up to 1e-3 above the optimum of small problems; without cones, at most 1e-9.
    """

    requires: ClassVar[tuple[str, ...]] = ("gurobipy",)
    extra: ClassVar[str] = "gurobi"

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        together = problem.budget.kind in ("per_layer", "columns")
        decisions = problem.n * (problem.m if problem.budget.kind == "per_layer" else 1)
        weights = problem.n * (problem.m if together else 1) if problem.refit else 0
        count = decisions + (2 if self.strengthened else 1) * weights
        most, reason = licence()
        return None if count <= most else f"its model has {count} variables; {reason}"

    def solve_model(self, model: JointModel | SelectionModel, part: Part, turns: InTurn, gap: float) -> bool:
        """See `MixedInteger.solve_model`."""
        return _solve(model, part, turns, gap, part.mask if self.informed else None)


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


@dataclass(frozen=True)
class _Built:
    """A model's decisions, and the squares that still need tangents.

    Attributes:
        decisions: `[b, n]` binary variables.
        sign: 1 if they say pruned, -1 if they say kept.
        squares: triples of `[n]` variables (v, s, z) with `v_i^2 <= s_i z_i`.
    """

    decisions: Any
    sign: float
    squares: Sequence[tuple[Any, Any, Any]] = ()


def _solve(
    numbers: JointModel | SelectionModel, part: Part, turns: InTurn, gap: float, start: Mask | None
) -> bool:
    import gurobipy as gp
    from gurobipy import GRB

    problem = part.problem
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
        if isinstance(numbers, JointModel):
            built = _joint(model, problem, numbers, start)
        else:
            built = _selection(model, problem, numbers, start)

        if built.squares:
            model.Params.LazyConstraints = 1

        def mask(values: Array) -> Mask:
            return rounded(problem, built.sign * np.asarray(values))

        def claim(dual: float) -> float:
            return numbers.unit * dual - numbers.widening if abs(dual) < GRB.INFINITY else -np.inf

        def solve(report: Callable[[Event], None]) -> None:
            def news(model: Any, where: int) -> None:
                if where == GRB.Callback.MIPSOL:
                    for triple in built.squares:
                        _add_tangents(model, *triple)
                    nodes = int(model.cbGet(GRB.Callback.MIPSOL_NODCNT))
                    dual = model.cbGet(GRB.Callback.MIPSOL_OBJBND)
                    report(Event(mask(model.cbGetSolution(built.decisions)), claim(dual), nodes))
                elif where == GRB.Callback.MIP:
                    nodes = int(model.cbGet(GRB.Callback.MIP_NODCNT))
                    report(Event(None, claim(model.cbGet(GRB.Callback.MIP_OBJBND)), nodes))

            model.optimize(news)
            found = mask(built.decisions.X) if model.SolCount else None
            report(Event(found, claim(model.ObjBound), int(model.NodeCount)))

        turns.watch(part, solve, model.terminate)
        if model.Status == GRB.INTERRUPTED and not turns.control.stopped():
            turns.control.interrupted = True  # Ctrl-C came before Python's handler was back
        return bool(model.Status == GRB.TIME_LIMIT)


def _add_tangents(model: Any, v: Any, s: Any, z: Any) -> None:
    """Cut off a candidate whose squares are too small, by the tangent at `v / z`."""
    V, S, Z = (np.asarray(model.cbGetSolution(variables)) for variables in (v, s, z))
    t = V / np.maximum(Z, 0.5)
    short = (2.0 * t * V - t * t * Z - S > SHORT) & (Z > 0.5)
    for i in np.flatnonzero(short).tolist():
        model.cbLazy(s[i].item() >= 2.0 * t[i] * v[i].item() - t[i] ** 2 * z[i].item())


def _joint(model: Any, problem: SubsetProblem, numbers: JointModel, start: Mask | None) -> _Built:
    """Build the joint model and hand it an incumbent to start from."""
    m, n = problem.W.shape
    pools = problem.pools
    z = model.addMVar(pools.labels.shape, vtype="B", lb=numbers.kept.astype(float))
    v = model.addMVar((m, n), lb=np.minimum(numbers.low, 0.0), ub=np.maximum(numbers.high, 0.0))
    _count(model, z, problem, pools.keep)
    point = None
    if start is not None:
        z.Start = (~pools.decisions(start)).astype(float)
        v.Start = point = np.where(start, 0.0, problem.weights(start) / numbers.scale)
    objective: Any = 0.0
    squares = []
    for r in range(m):
        keep, a, d, R = z[0 if pools.coupled else r], numbers.a[r], numbers.d[r], numbers.R[r]
        model.addConstr(v[r] <= numbers.high[r] * keep)
        model.addConstr(v[r] >= numbers.low[r] * keep)
        objective += 0.5 * (v[r] @ R @ v[r]) - (R @ a + d * a) @ v[r] + 0.5 * float(a @ R @ a + d @ (a * a))
        if d.any():
            s = model.addMVar(n, ub=numbers.largest_square[r])
            for offset in TANGENTS:
                t = a + offset
                model.addConstr(s >= 2.0 * t * v[r] - t * t * keep)
            if point is not None:
                s.Start = point[r] ** 2
            objective += (0.5 * d) @ s
            squares.append((v[r], s, keep))
    model.setObjective(objective)
    return _Built(z, -1.0, squares)


def _selection(model: Any, problem: SubsetProblem, numbers: SelectionModel, start: Mask | None) -> _Built:
    """Build the selection model and hand it an incumbent to start from."""
    pools = problem.pools
    x = model.addMVar(pools.labels.shape, vtype="B")
    _count(model, x, problem, pools.prune)
    if start is not None:
        x.Start = pools.decisions(start).astype(float)
    objective: Any = 0.0
    for b, R in enumerate(numbers.R):
        objective += 0.5 * (x[b] @ R @ x[b]) + numbers.linear[b] @ x[b]
    model.setObjective(objective)
    return _Built(x, 1.0)


def _count(model: Any, decisions: Any, problem: SubsetProblem, counts: NDArray[np.int64]) -> None:
    """`sum_pool decisions = count`."""
    for p, count in enumerate(counts):
        rows, columns = np.nonzero(problem.pools.labels == p)
        model.addConstr(decisions[rows, columns].sum() == int(count))
