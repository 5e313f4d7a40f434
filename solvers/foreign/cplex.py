"""CPLEX, given the perspective by its tangents: a few at first, and more at every candidate solution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from solvers.foreign.mixed_integer import Ended, Job, MixedInteger, Run, Tell
from solvers.foreign.models import TOLERANCE

SIZE_EXCEEDED = 1016
"""CPLEX's number for a model that its licence does not allow."""


@dataclass(frozen=True)
class Cplex(MixedInteger):
    """CPLEX."""

    product: ClassVar[str] = "CPLEX"
    free: ClassVar[int] = 1000
    tangents: ClassVar[bool] = True
    requires: ClassVar[tuple[str, ...]] = ("cplex",)
    wheel: ClassVar[str] = "cplex>=22.2"

    @classmethod
    def probe(cls) -> bool:
        """See `MixedInteger.probe`."""
        import cplex

        with _silent() as probe:
            probe.variables.add(obj=[1.0] * (cls.free + 1))
            try:
                probe.solve()
            except cplex.exceptions.CplexSolverError as error:
                if error.args[-1] == SIZE_EXCEEDED:
                    return False
                raise
        return True

    @contextmanager
    def open(self, job: Job) -> Iterator[Run]:
        """See `MixedInteger.open`."""
        import cplex

        with _silent() as model, cplex.Aborter() as aborter:
            _build(model, job)
            model.use_aborter(aborter)
            parameters = model.parameters
            parameters.randomseed.set(job.seed)
            parameters.parallel.set(parameters.parallel.values.deterministic)
            parameters.mip.tolerances.mipgap.set(job.gap)
            parameters.mip.tolerances.absmipgap.set(0.0)
            parameters.mip.tolerances.integrality.set(TOLERANCE)
            parameters.simplex.tolerances.optimality.set(TOLERANCE)
            parameters.simplex.tolerances.feasibility.set(TOLERANCE)
            parameters.barrier.convergetol.set(TOLERANCE)
            parameters.barrier.qcpconvergetol.set(TOLERANCE)
            if job.seconds is not None:
                parameters.timelimit.set(job.seconds)
            codes = model.solution.status
            statuses = {
                codes.MIP_optimal: Ended.DONE,
                codes.optimal_tolerance: Ended.DONE,
                codes.MIP_time_limit_feasible: Ended.TIME,
                codes.MIP_time_limit_infeasible: Ended.TIME,
                codes.MIP_abort_feasible: Ended.STOPPED,
                codes.MIP_abort_infeasible: Ended.STOPPED,
            }

            def solve(tell: Tell) -> Ended:
                class News:
                    def invoke(self, context: Any) -> None:
                        info, point = context.info, None
                        if context.in_candidate() and context.is_candidate_point():
                            point = np.asarray(context.get_candidate_point())
                            A, b = job.matrices.tangents(point)
                            if len(b):
                                context.reject_candidate(_rows(A), "L" * len(b), b.tolist())
                        nodes = context.get_long_info(info.node_count)
                        tell(point, context.get_double_info(info.best_bound), nodes)

                where = cplex.callbacks.Context.id
                model.set_callback(News(), where.candidate | where.global_progress)
                model.solve()
                answer = model.solution
                point = answer.get_values() if answer.is_primal_feasible() else None
                tell(point, answer.MIP.get_best_objective(), answer.progress.get_num_nodes_processed())
                return statuses.get(answer.get_status(), Ended.FAILED)

            yield Run(solve, aborter.abort)


def _silent() -> Any:
    import cplex

    model = cplex.Cplex()
    for channel in ("log", "results", "warning", "error"):
        getattr(model, f"set_{channel}_stream")(None)
    return model


def _build(model: Any, job: Job) -> None:
    """Hand over the matrices, and the incumbent to start from."""
    matrices = job.matrices
    model.variables.add(
        obj=matrices.c.tolist(),
        lb=matrices.lower.tolist(),
        ub=matrices.upper.tolist(),
        types="".join("B" if binary else "C" for binary in matrices.binary),
    )
    model.objective.set_offset(matrices.constant)
    model.objective.set_quadratic(_rows(matrices.Q))
    senses = "E" * matrices.equalities + "L" * (len(matrices.b) - matrices.equalities)
    model.linear_constraints.add(_rows(matrices.A), senses, matrices.b.tolist())
    if len(matrices.cones):
        A, b = matrices.first_tangents()
        model.linear_constraints.add(_rows(A), "L" * len(b), b.tolist())
    if job.start is not None:
        point = [list(range(len(matrices.c))), job.start.tolist()]
        model.MIP_starts.add(point, model.MIP_starts.effort_level.check_feasibility)


def _rows(A: sp.csr_array) -> list[list[Any]]:
    """A sparse matrix as CPLEX takes it: the columns and the values of every row."""
    return [
        [A.indices[i:j].tolist(), A.data[i:j].tolist()]
        for i, j in zip(A.indptr[:-1], A.indptr[1:], strict=True)
    ]
