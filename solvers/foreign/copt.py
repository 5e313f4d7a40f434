"""COPT on the plain and on the split-strengthened model of both variants."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

FREE = 2000
"""Most variables, and most constraints, without a licence."""
LIMIT = 20_000
"""Most variables of one model under any licence."""


class CoptModel(MixedInteger):
    """What both solvers below share: the model, its run, and the reading of its answers.

    Convex parts are factored, and the perspective enters as rotated cones: COPT 8 then claimed no bound
    above the optimum of any of hundreds of small problems. Given lazy tangents it lost optima, and the
    bound that it tells its callbacks is wrong, so bounds are read when it is done.
    """

    requires: ClassVar[tuple[str, ...]] = ("coptpy",)
    wheel: ClassVar[str] = "coptpy>=8"

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        variables, rows = size(problem, self.strengthened, factored=True)
        most, reason = licence()
        if max(variables, rows) <= most:
            return None
        return f"its model has {variables} variables and {rows} constraints; {reason}"

    def solve_model(self, model: JointModel | SelectionModel, part: Part, turns: InTurn, gap: float) -> bool:
        """See `MixedInteger.solve_model`."""
        return _solve(model, part, turns, gap)


@dataclass(frozen=True)
class Copt(CoptModel):
    """The strengthened model: the perspective of the best split, by rotated cones."""

    name: ClassVar[str] = "copt"
    summary: ClassVar[str] = "COPT on the split-strengthened (perspective) model"
    strengthened: ClassVar[bool] = True


@dataclass(frozen=True)
class CoptPlain(CoptModel):
    """The plain big-M model, as a general solver would be given it."""

    name: ClassVar[str] = "copt-plain"
    summary: ClassVar[str] = "COPT on the plain big-M model, for comparison"
    strengthened: ClassVar[bool] = False


@cache
def licence() -> tuple[int, str]:
    """The most variables or constraints under the licence at hand, and what to do about it."""
    import coptpy

    try:
        probe = _environment().createModel()
        probe.setParam("Logging", 0)
        probe.addMVar(FREE + 1, vtype=coptpy.COPT.BINARY)
        probe.solve()
    except coptpy.CoptError as error:
        if "(LICENSE)" in str(error):
            allowed = f"COPT without a licence allows {FREE} of each"
            return FREE, f"{allowed}; give it one, or try branch-and-bound"
        return 0, f"COPT says: {error}"
    return LIMIT, f"at most {LIMIT} are taken; try branch-and-bound"


@cache
def _environment() -> Any:
    """The one environment of the process; looking for a licence is told on standard output."""
    import coptpy

    with _unheard():
        return coptpy.Envr()


@contextmanager
def _unheard() -> Iterator[None]:
    """Let nothing reach standard output that does not pass through Python."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _solve(numbers: JointModel | SelectionModel, part: Part, turns: InTurn, gap: float) -> bool:
    import coptpy
    from coptpy import COPT

    matrices = programme(numbers, part.problem, part.mask, factored=True)
    model = _environment().createModel()
    parameters: dict[str, float] = {
        "Logging": 0,
        "LogToConsole": 0,
        "RelGap": gap,
        "AbsGap": 0.0,
        "FeasTol": TOLERANCE,
        "DualTol": TOLERANCE,
        "IntTol": TOLERANCE,
    }
    if part.seconds is not None:
        parameters["TimeLimit"] = part.seconds
    for name, value in parameters.items():
        model.setParam(name, value)
    x = _build(model, matrices)

    told = threading.Event()

    def claim(dual: float) -> float:
        return numbers.unit * dual - numbers.widening if abs(dual) < COPT.INFINITY else -np.inf

    def mask(values: list[float]) -> Mask:
        return matrices.mask(part.problem, np.asarray(values))

    def solve(report: Callable[[Event], None]) -> None:
        class News(coptpy.CallbackBase):
            def callback(self) -> None:
                if told.is_set():
                    self.interrupt()
                elif self.where() == COPT.CBCONTEXT_MIPSOL:
                    report(Event(mask(self.getSolution(x))))

        news = News()
        model.setCallback(news, COPT.CBCONTEXT_MIPSOL | COPT.CBCONTEXT_MIPNODE)
        model.solve()
        found = mask(model.getValues()) if model.hasmipsol else None
        report(Event(found, claim(model.bestbnd), int(model.nodecnt)))

    turns.watch(part, solve, told.set)
    if model.status == COPT.INTERRUPTED and not turns.control.stopped():
        turns.control.interrupted = True  # Ctrl-C came before Python's handler was back
    return bool(model.status == COPT.TIMEOUT)


def _build(model: Any, matrices: Programme) -> Any:
    """Hand over the matrices and the incumbent; the variables."""
    from coptpy import COPT

    types = np.where(matrices.binary, COPT.BINARY, COPT.CONTINUOUS)
    variables = [
        model.addVar(lb=lower, ub=upper, vtype=kind)
        for lower, upper, kind in zip(
            matrices.lower.tolist(), matrices.upper.tolist(), types.tolist(), strict=True
        )
    ]
    A, b, cut = sp.csr_matrix(matrices.A), matrices.b, matrices.equalities
    model.addMConstr(A[:cut], variables, COPT.EQUAL, b[:cut])
    if len(b) > cut:
        model.addMConstr(A[cut:], variables, COPT.LESS_EQUAL, b[cut:])
    for v, s, z in matrices.cones.tolist():
        model.addQConstr(variables[v] * variables[v] <= variables[s] * variables[z])
    Q = sp.csr_matrix(0.5 * matrices.Q)
    model.setMObjective(Q, matrices.c, matrices.constant, variables, variables, variables, COPT.MINIMIZE)
    model.setMipStart(variables, matrices.start.tolist())
    model.loadMipStart()
    return variables
