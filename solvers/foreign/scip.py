"""SCIP, given convex parts as sums of squares, one variable a square, and the perspective as rotated cones.

SCIP approximates by tangents, which are far better on one square at a time than on their sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from solvers.foreign.mixed_integer import Ended, Job, MixedInteger, Run, Tell
from solvers.foreign.models import TOLERANCE
from solvers.problem import SubsetProblem

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
STATUSES = {
    "optimal": Ended.DONE, "gaplimit": Ended.DONE, "timelimit": Ended.TIME, "userinterrupt": Ended.STOPPED,
}  # fmt: skip


@dataclass(frozen=True)
class Scip(MixedInteger):
    """SCIP."""

    product: ClassVar[str] = "SCIP"
    factored: ClassVar[bool] = True
    requires: ClassVar[tuple[str, ...]] = ("pyscipopt",)
    wheel: ClassVar[str] = "pyscipopt>=5.0"

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        rows = problem.m if problem.budget.kind == "per_layer" or problem.pools.coupled else 1
        count = 5 * rows * problem.n
        if count > LIMIT:
            return f"its model would have about {count} variables, more than {LIMIT}; try branch-and-bound"
        return None

    @contextmanager
    def open(self, job: Job) -> Iterator[Run]:
        """See `MixedInteger.open`."""
        from pyscipopt import Eventhdlr, Model
        from pyscipopt.scip import PY_SCIP_EVENTTYPE as EVENT
        from pyscipopt.scip import PY_SCIP_PARAMSETTING as SETTING

        model = Model()
        model.hideOutput()
        model.setHeuristics(SETTING.OFF)
        parameters = {
            "misc/catchctrlc": False,
            "randomization/randomseedshift": job.seed,
            "numerics/feastol": FEASIBILITY,
            "numerics/dualfeastol": FEASIBILITY,
            "limits/gap": job.gap,
            "separating/maxrounds": 1,
            "separating/maxcuts": 20,
            "branching/pscost/priority": 100_000,
        }
        parameters |= {f"separating/{name}/freq": -1 for name in SEPARATORS}
        if job.seconds is not None:
            parameters["limits/time"] = job.seconds
        for name, value in parameters.items():
            model.setParam(name, value)
        x = _build(model, job)

        def solve(tell: Tell) -> Ended:
            def news(with_mask: bool) -> None:
                found = model.getBestSol() if with_mask else None
                point = None if found is None else [model.getSolVal(found, variable) for variable in x]
                dual = float(model.getDualbound())
                tell(point, dual if model.isInfinity(abs(dual)) else dual / OBJECTIVE, model.getNTotalNodes())

            class News(Eventhdlr):
                def eventinit(self) -> None:
                    self.model.catchEvent(EVENT.BESTSOLFOUND, self)
                    self.model.catchEvent(EVENT.NODESOLVED, self)

                def eventexit(self) -> None:
                    self.model.dropEvent(EVENT.BESTSOLFOUND, self)
                    self.model.dropEvent(EVENT.NODESOLVED, self)

                def eventexec(self, event: Any) -> None:
                    news(event.getType() == EVENT.BESTSOLFOUND)

            model.includeEventhdlr(News(), "news", "incumbents and bounds")
            model.optimizeNogil()
            news(True)
            return STATUSES.get(model.getStatus(), Ended.FAILED)

        def stop() -> None:
            with suppress(Exception):  # refused while SCIP goes from stage to stage; it is asked again
                model.interruptSolve()

        yield Run(solve, stop)


def _build(model: Any, job: Job) -> list[Any]:
    """Hand over the matrices and the incumbent; the binary variables.

    A square `1/2 y^2` of the objective enters as `1/2 e` with `e >= y^2`, both within the job's reach.
    """
    from pyscipopt import quicksum

    matrices, top = job.matrices, 1.0 + 1e-6
    squares = np.flatnonzero(matrices.Q.diagonal())
    lower, upper = matrices.lower.copy(), matrices.upper.copy()
    lower[squares], upper[squares] = -top * job.reach**0.5, top * job.reach**0.5
    x = [
        model.addVar(vtype="B" if binary else "C", lb=low, ub=high)
        for binary, low, high in zip(matrices.binary.tolist(), lower.tolist(), upper.tolist(), strict=True)
    ]
    A = matrices.A
    for i, right in enumerate(matrices.b.tolist()):
        row = slice(*A.indptr[i : i + 2])
        pairs = zip(A.data[row].tolist(), A.indices[row].tolist(), strict=True)
        left = quicksum(a * x[j] for a, j in pairs)
        model.addCons(left == right if i < matrices.equalities else left <= right)
    for v, s, z in matrices.cones.tolist():
        model.addCons(x[v] * x[v] <= x[s] * x[z])
    e = [model.addVar(lb=0.0, ub=top**2 * job.reach) for _ in squares]
    for square, y in zip(e, squares.tolist(), strict=True):
        model.addCons(x[y] * x[y] <= square)
    linear = quicksum(c * variable for c, variable in zip(matrices.c.tolist(), x, strict=True) if c)
    model.setObjective(OBJECTIVE * (linear + 0.5 * quicksum(e) + matrices.constant))
    if job.start is not None:
        solution = model.createSol()
        for variable, value in zip([*x, *e], [*job.start, *job.start[squares] ** 2], strict=True):
            model.setSolVal(solution, variable, value)
        model.addSol(solution)
    return x[: matrices.decisions.size]
