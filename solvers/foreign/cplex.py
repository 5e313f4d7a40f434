"""CPLEX on the plain and on the split-strengthened model of both variants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from solvers.foreign.in_turn import Event, InTurn
from solvers.foreign.mixed_integer import MixedInteger
from solvers.foreign.models import TOLERANCE, JointModel, SelectionModel
from solvers.foreign.programme import Programme, programme, size
from solvers.form.parts import Part
from solvers.problem import Mask, SubsetProblem

FREE = 1000
"""Most variables, and most constraints, under the licence that comes with the wheel."""
LIMIT = 20_000
"""Most variables of one model under any licence."""
SIZE_EXCEEDED = 1016
"""CPLEX's number for a model that its licence does not allow."""


class CplexModel(MixedInteger):
    """What both solvers below share: the model, its run, and the reading of its answers.

    The perspective enters by its tangents, see `Programme.tangents`: a few at first and more at every
    candidate solution.
    """

    requires: ClassVar[tuple[str, ...]] = ("cplex",)
    wheel: ClassVar[str] = "cplex>=22.2"

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        variables, rows = size(problem, self.strengthened, tangents=True)
        most, reason = licence()
        if max(variables, rows) <= most:
            return None
        return f"its model has {variables} variables and {rows} constraints; {reason}"

    def solve_model(self, model: JointModel | SelectionModel, part: Part, turns: InTurn, gap: float) -> bool:
        """See `MixedInteger.solve_model`."""
        return _solve(model, part, turns, gap, self.informed)


@dataclass(frozen=True)
class Cplex(CplexModel):
    """The strengthened model: the perspective of the best split."""

    name: ClassVar[str] = "cplex"
    summary: ClassVar[str] = "CPLEX on the split-strengthened (perspective) model"
    strengthened: ClassVar[bool] = True


@dataclass(frozen=True)
class CplexPlain(CplexModel):
    """The plain big-M model, as a general solver would be given it.

    Attributes:
        informed: whether it gets the incumbent of our local search, and the ranges of weights that follow.
    """

    informed: bool = True

    name: ClassVar[str] = "cplex-plain"
    summary: ClassVar[str] = "CPLEX on the plain big-M model, for comparison"
    strengthened: ClassVar[bool] = False


@cache
def licence() -> tuple[int, str]:
    """The most variables or constraints under the licence at hand, and what to do about it."""
    import cplex

    with _silent() as probe:
        probe.variables.add(obj=[1.0] * (FREE + 1))
        try:
            probe.solve()
        except cplex.exceptions.CplexSolverError as error:
            if error.args[-1] == SIZE_EXCEEDED:
                allowed = f"the licence of its wheel allows {FREE} of each"
                return FREE, f"{allowed}; give it a full one, or try branch-and-bound"
            return 0, f"CPLEX says: {error.args[0]}"
    return LIMIT, f"at most {LIMIT} are taken; try branch-and-bound"


def _silent() -> Any:
    import cplex

    model = cplex.Cplex()
    for channel in ("log", "results", "warning", "error"):
        getattr(model, f"set_{channel}_stream")(None)
    return model


def _solve(numbers: JointModel | SelectionModel, part: Part, turns: InTurn, gap: float, start: bool) -> bool:
    import cplex

    matrices = programme(numbers, part.problem, part.mask)
    with _silent() as model, cplex.Aborter() as aborter:
        _build(model, matrices, start)
        model.use_aborter(aborter)
        parameters = model.parameters
        parameters.randomseed.set(turns.control.seed % 2_000_000_000)
        parameters.parallel.set(parameters.parallel.values.deterministic)
        parameters.mip.tolerances.mipgap.set(gap)
        parameters.mip.tolerances.absmipgap.set(0.0)
        parameters.mip.tolerances.integrality.set(TOLERANCE)
        parameters.simplex.tolerances.optimality.set(TOLERANCE)
        parameters.simplex.tolerances.feasibility.set(TOLERANCE)
        parameters.barrier.convergetol.set(TOLERANCE)
        parameters.barrier.qcpconvergetol.set(TOLERANCE)
        if part.seconds is not None:
            parameters.timelimit.set(part.seconds)

        def claim(dual: float) -> float:
            known = abs(dual) < cplex.infinity
            return numbers.unit * dual - numbers.widening if known else -np.inf

        def mask(values: Any) -> Mask:
            return matrices.mask(part.problem, np.asarray(values))

        def solve(report: Callable[[Event], None]) -> None:
            class News:
                def invoke(self, context: Any) -> None:
                    info = context.info
                    found = None
                    if context.in_candidate() and context.is_candidate_point():
                        point = np.asarray(context.get_candidate_point())
                        found = mask(point)
                        A, b = matrices.tangents(point)
                        if len(b):
                            context.reject_candidate(_rows(A), "L" * len(b), b.tolist())
                    dual = context.get_double_info(info.best_bound)
                    report(Event(found, claim(dual), context.get_long_info(info.node_count)))

            where = cplex.callbacks.Context.id
            model.set_callback(News(), where.candidate | where.global_progress)
            model.solve()
            answer = model.solution
            found = mask(answer.get_values()) if answer.is_primal_feasible() else None
            dual = answer.MIP.get_best_objective()
            report(Event(found, claim(dual), answer.progress.get_num_nodes_processed()))

        turns.watch(part, solve, aborter.abort)
        codes = model.solution.status
        return model.solution.get_status() in (codes.MIP_time_limit_feasible, codes.MIP_time_limit_infeasible)


def _build(model: Any, matrices: Programme, start: bool) -> None:
    """Hand over the matrices, and the incumbent to start from."""
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
    if start:
        point = [list(range(len(matrices.c))), matrices.start.tolist()]
        model.MIP_starts.add(point, model.MIP_starts.effort_level.check_feasibility)


def _rows(A: sp.csr_array) -> list[list[Any]]:
    """A sparse matrix as CPLEX takes it: the columns and the values of every row."""
    return [
        [A.indices[i:j].tolist(), A.data[i:j].tolist()]
        for i, j in zip(A.indptr[:-1], A.indptr[1:], strict=True)
    ]
