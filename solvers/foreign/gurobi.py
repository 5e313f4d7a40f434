"""Gurobi, given the perspective by its tangents: a few at first, and more at every candidate solution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from solvers.foreign.mixed_integer import Ended, Job, MixedInteger, Run, Tell
from solvers.foreign.models import TOLERANCE


@dataclass(frozen=True)
class Gurobi(MixedInteger):
    """Gurobi."""

    product: ClassVar[str] = "Gurobi"
    free: ClassVar[int] = 200
    tangents: ClassVar[bool] = True
    requires: ClassVar[tuple[str, ...]] = ("gurobipy",)
    wheel: ClassVar[str] = "gurobipy>=11"

    @staticmethod
    def measure(variables: int, rows: int) -> int:
        """See `MixedInteger.measure`: variables, where the objective is quadratic."""
        return variables

    @classmethod
    def probe(cls) -> bool:
        """See `MixedInteger.probe`."""
        import gurobipy as gp

        try:
            with gp.Env(params={"OutputFlag": 0}) as env, gp.Model(env=env) as probe:
                x = probe.addMVar(cls.free + 1)
                probe.setObjective(x @ x)
                probe.optimize()
        except gp.GurobiError as error:
            if error.errno == gp.GRB.Error.SIZE_LIMIT_EXCEEDED:
                return False
            raise
        return True

    @contextmanager
    def open(self, job: Job) -> Iterator[Run]:
        """See `MixedInteger.open`."""
        import gurobipy as gp
        from gurobipy import GRB

        statuses = {
            GRB.OPTIMAL: Ended.DONE, GRB.TIME_LIMIT: Ended.TIME, GRB.INTERRUPTED: Ended.STOPPED,
        }  # fmt: skip
        parameters: dict[str, float] = {
            "OutputFlag": 0,
            "Seed": job.seed,
            "MIPGap": job.gap,
            "MIPGapAbs": 0.0,
            "OptimalityTol": TOLERANCE,
            "FeasibilityTol": TOLERANCE,
            "IntFeasTol": TOLERANCE,
        }
        if job.seconds is not None:
            parameters["TimeLimit"] = job.seconds
        with gp.Env(params=parameters) as env, gp.Model(env=env) as model:
            x = _build(model, job)

            def solve(tell: Tell) -> Ended:
                def news(model: Any, where: int) -> None:
                    if where == GRB.Callback.MIPSOL:
                        point = np.asarray(model.cbGetSolution(x))
                        A, b = job.matrices.tangents(point)
                        for i, right in enumerate(b.tolist()):
                            row = slice(*A.indptr[i : i + 2])
                            model.cbLazy(A.data[row] @ x[A.indices[row]] <= right)
                        nodes = int(model.cbGet(GRB.Callback.MIPSOL_NODCNT))
                        tell(point, model.cbGet(GRB.Callback.MIPSOL_OBJBND), nodes)
                    elif where == GRB.Callback.MIP:
                        nodes = int(model.cbGet(GRB.Callback.MIP_NODCNT))
                        tell(None, model.cbGet(GRB.Callback.MIP_OBJBND), nodes)

                model.optimize(news)
                tell(x.X if model.SolCount else None, model.ObjBound, int(model.NodeCount))
                return statuses.get(model.Status, Ended.FAILED)

            yield Run(solve, model.terminate)


def _build(model: Any, job: Job) -> Any:
    """Hand over the matrices, and the incumbent to start from; the variables."""
    matrices = job.matrices
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
    if job.start is not None:
        x.Start = job.start
    return x
