"""Xpress, given the perspective as rotated cones."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from solvers.foreign.mixed_integer import Ended, Job, MixedInteger, Run, Tell
from solvers.foreign.models import TOLERANCE

BARRIER = 1e-11
"""Tolerance of the barrier method on cones. Left to itself it claimed bounds up to 2e-5 above the optimum; at
1e-12 it gave up on some problems."""


@dataclass(frozen=True)
class Xpress(MixedInteger):
    """Xpress."""

    product: ClassVar[str] = "Xpress"
    free: ClassVar[int] = 200
    requires: ClassVar[tuple[str, ...]] = ("xpress",)
    wheel: ClassVar[str] = "xpress>=9.9"

    @staticmethod
    def measure(variables: int, rows: int) -> int:
        """See `MixedInteger.measure`: rows and columns together."""
        return variables + rows

    @classmethod
    def probe(cls) -> bool:
        """See `MixedInteger.probe`."""
        import xpress

        every, ones = np.arange(cls.free + 1), np.ones(cls.free + 1)
        try:
            probe = _problem()
            probe.loadQP(
                rowtype=[], rhs=[], start=[0] * (cls.free + 2), rowind=[], rowcoef=[], objcoef=ones,
                lb=0.0 * ones, ub=ones, objqcol1=every, objqcol2=every, objqcoef=ones,
            )  # fmt: skip
            probe.optimize()
        except (xpress.SolverError, xpress.InterfaceError) as error:
            if "too many rows and columns" in " ".join(str(error).split()):
                return False
            raise
        return True

    @contextmanager
    def open(self, job: Job) -> Iterator[Run]:
        """See `MixedInteger.open`."""
        told = threading.Event()

        def solve(tell: Tell) -> Ended:
            ended = _attempt(job, tell, told)
            if ended is Ended.FAILED and not told.is_set():
                ended = _attempt(job, tell, told, presolve=0)
            return ended

        yield Run(solve, told.set)


def _problem() -> Any:
    import xpress

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the licence of the wheel announces itself
        problem = xpress.problem()
    problem.setControl("outputlog", 0)
    return problem


def _attempt(job: Job, tell: Tell, told: threading.Event, presolve: int = 1) -> Ended:
    """Solve; Xpress's presolve is left out where it gives up with it for numerical reasons."""
    import xpress

    model = _problem()
    controls: dict[str, float] = {
        "randomseed": job.seed,
        "presolve": presolve,
        "miprelstop": job.gap,
        "mipabsstop": 0.0,
        "mipaddcutoff": 0.0,
        "feastol": TOLERANCE,
        "optimalitytol": TOLERANCE,
        "miptol": TOLERANCE,
        "bargapstop": BARRIER,
        "barprimalstop": BARRIER,
        "bardualstop": BARRIER,
    }
    if job.seconds is not None:
        controls["timelimit"] = job.seconds
    for name, value in controls.items():
        model.setControl(name, value)
    _build(model, job)

    def news(problem: Any, x: Any) -> None:
        tell(x, float(problem.attributes.bestbound), int(problem.attributes.nodes))

    def look(problem: Any, data: Any) -> None:
        if told.is_set():
            problem.interrupt()

    model.addIntsolCallback(lambda problem, data: news(problem, problem.getCallbackSolution()), None, 0)
    model.addCheckTimeCallback(look, None, 0)
    model.optimize()
    news(model, model.getSolution() if model.attributes.mipsols else None)
    if model.attributes.stopstatus == xpress.enums.StopType.TIMELIMIT:
        return Ended.TIME
    if told.is_set():
        return Ended.STOPPED
    complete = model.attributes.solvestatus == xpress.enums.SolveStatus.COMPLETED
    return Ended.DONE if complete else Ended.FAILED


def _build(model: Any, job: Job) -> None:
    """Hand over the matrices and the incumbent."""
    matrices = job.matrices
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
    if job.start is not None:
        model.addMipSol(job.start)
