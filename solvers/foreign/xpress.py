"""Xpress on the plain and on the split-strengthened model of both variants."""

from __future__ import annotations

import threading
import warnings
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
from solvers.problem import SubsetProblem

FREE = 200
"""Most rows plus columns of a quadratic model under the licence that comes with the wheel."""
LIMIT = 20_000
"""Most rows plus columns of one model under any licence."""
BARRIER = 1e-11
"""Tolerance of the barrier method on cones. Left to itself it claimed bounds up to 2e-5 above the optimum; at
1e-12 it gave up on some problems."""


class XpressModel(MixedInteger):
    """What both solvers below share: the model, its run, and the reading of its answers."""

    requires: ClassVar[tuple[str, ...]] = ("xpress",)
    wheel: ClassVar[str] = "xpress>=9.9"

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        total = sum(size(problem, self.strengthened))
        most, reason = licence()
        return None if total <= most else f"its model has {total} rows and columns; {reason}"

    def solve_model(self, model: JointModel | SelectionModel, part: Part, turns: InTurn, gap: float) -> bool:
        """See `MixedInteger.solve_model`."""
        return _solve(model, part, turns, gap)


@dataclass(frozen=True)
class Xpress(XpressModel):
    """The strengthened model: the perspective of the best split, by rotated cones."""

    name: ClassVar[str] = "xpress"
    summary: ClassVar[str] = "Xpress on the split-strengthened (perspective) model"
    strengthened: ClassVar[bool] = True


@dataclass(frozen=True)
class XpressPlain(XpressModel):
    """The plain big-M model, as a general solver would be given it."""

    name: ClassVar[str] = "xpress-plain"
    summary: ClassVar[str] = "Xpress on the plain big-M model, for comparison"
    strengthened: ClassVar[bool] = False


@cache
def licence() -> tuple[int, str]:
    """The most rows and columns under the licence at hand, and what to do about it."""
    import xpress

    every, ones = np.arange(FREE + 1), np.ones(FREE + 1)
    try:
        probe = _problem()
        probe.loadQP(
            rowtype=[], rhs=[], start=[0] * (FREE + 2), rowind=[], rowcoef=[], objcoef=ones,
            lb=0.0 * ones, ub=ones, objqcol1=every, objqcol2=every, objqcoef=ones,
        )  # fmt: skip
        probe.optimize()
    except (xpress.SolverError, xpress.InterfaceError) as error:
        line = " ".join(str(error).split())
        if "too many rows and columns" in line:
            allowed = f"the licence of its wheel allows {FREE} together"
            return FREE, f"{allowed}; give it a full one, or try branch-and-bound"
        return 0, f"Xpress says: {line}"
    return LIMIT, f"at most {LIMIT} are taken; try branch-and-bound"


def _problem() -> Any:
    import xpress

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the licence of the wheel announces itself
        problem = xpress.problem()
    problem.setControl("outputlog", 0)
    return problem


def _solve(numbers: JointModel | SelectionModel, part: Part, turns: InTurn, gap: float) -> bool:
    """One part; again without Xpress's presolve where it gives up for numerical reasons."""
    stopped = _attempt(numbers, part, turns, gap)
    if stopped == "gave up" and not turns.control.stopped():
        stopped = _attempt(numbers, part, turns, gap, presolve=0)
    return stopped == "time limit"


def _attempt(
    numbers: JointModel | SelectionModel, part: Part, turns: InTurn, gap: float, presolve: int = 1
) -> str | None:
    """Solve, and say whether and why the search is not complete."""
    import xpress

    matrices = programme(numbers, part.problem, part.mask)
    model = _problem()
    controls: dict[str, float] = {
        "randomseed": turns.control.seed % 2_000_000_000,
        "presolve": presolve,
        "miprelstop": gap,
        "mipabsstop": 0.0,
        "mipaddcutoff": 0.0,
        "feastol": TOLERANCE,
        "optimalitytol": TOLERANCE,
        "miptol": TOLERANCE,
        "bargapstop": BARRIER,
        "barprimalstop": BARRIER,
        "bardualstop": BARRIER,
    }
    if part.seconds is not None:
        controls["timelimit"] = part.seconds
    for name, value in controls.items():
        model.setControl(name, value)
    _build(model, matrices)
    told = threading.Event()

    def news(problem: Any, x: Any) -> Event:
        dual, nodes = float(problem.attributes.bestbound), int(problem.attributes.nodes)
        claim = numbers.unit * dual - numbers.widening if abs(dual) < xpress.infinity else -np.inf
        return Event(None if x is None else matrices.mask(part.problem, np.asarray(x)), claim, nodes)

    def solve(report: Callable[[Event], None]) -> None:
        def incumbent(problem: Any, data: Any) -> None:
            report(news(problem, problem.getCallbackSolution()))

        def look(problem: Any, data: Any) -> None:
            if told.is_set():
                problem.interrupt()

        model.addIntsolCallback(incumbent, None, 0)
        model.addCheckTimeCallback(look, None, 0)
        model.optimize()
        report(news(model, model.getSolution() if model.attributes.mipsols else None))

    turns.watch(part, solve, told.set)
    if model.attributes.stopstatus == xpress.enums.StopType.TIMELIMIT:
        return "time limit"
    complete = model.attributes.solvestatus == xpress.enums.SolveStatus.COMPLETED
    return None if complete or told.is_set() else "gave up"


def _build(model: Any, matrices: Programme) -> None:
    """Hand over the matrices and the incumbent."""
    K, N = len(matrices.cones), len(matrices.c)
    A = sp.csc_array(sp.vstack([matrices.A, sp.csr_array((K, N))]))
    Q = sp.coo_array(sp.triu(matrices.Q))
    cut, rows = matrices.equalities, len(matrices.b)
    v, s, z = matrices.cones.T
    model.loadMIQCQP(
        rowtype=["E"] * cut + ["L"] * (rows - cut + K), rhs=np.concatenate([matrices.b, np.zeros(K)]),
        start=A.indptr, rowind=A.indices, rowcoef=A.data,
        objcoef=matrices.c, objqcol1=Q.row, objqcol2=Q.col, objqcoef=Q.data,
        lb=matrices.lower, ub=matrices.upper,
        qrowind=rows + np.arange(K), nrowqcoefs=np.full(K, 2),
        rowqcol1=np.stack([v, np.minimum(s, z)], axis=1).ravel(),
        rowqcol2=np.stack([v, np.maximum(s, z)], axis=1).ravel(),
        rowqcoef=np.tile([1.0, -0.5], K),
        entind=np.flatnonzero(matrices.binary), coltype=["B"] * int(matrices.binary.sum()),
    )  # fmt: skip
    model.chgObj([-1], [-matrices.constant])
    model.addMipSol(matrices.start)
