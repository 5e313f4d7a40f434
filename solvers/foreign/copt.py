"""COPT, given convex parts as sums of squares, and the perspective as rotated cones.

COPT 8 then claimed no bound above the optimum of any of hundreds of small problems. Given lazy tangents it
lost optima, and the bound that it tells its callbacks is wrong, so bounds are read when it is done.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from solvers.foreign.mixed_integer import Ended, Job, MixedInteger, Run, Tell
from solvers.foreign.models import TOLERANCE


@dataclass(frozen=True)
class Copt(MixedInteger):
    """COPT."""

    product: ClassVar[str] = "COPT"
    free: ClassVar[int] = 2000
    factored: ClassVar[bool] = True
    requires: ClassVar[tuple[str, ...]] = ("coptpy",)
    wheel: ClassVar[str] = "coptpy>=8"

    @classmethod
    def probe(cls) -> bool:
        """See `MixedInteger.probe`."""
        import coptpy

        try:
            probe = _environment().createModel()
            probe.setParam("Logging", 0)
            probe.addMVar(cls.free + 1, vtype=coptpy.COPT.BINARY)
            probe.solve()
        except coptpy.CoptError as error:
            if "(LICENSE)" in str(error):
                return False
            raise
        return True

    @contextmanager
    def open(self, job: Job) -> Iterator[Run]:
        """See `MixedInteger.open`."""
        import coptpy
        from coptpy import COPT

        statuses = {
            COPT.OPTIMAL: Ended.DONE, COPT.TIMEOUT: Ended.TIME, COPT.INTERRUPTED: Ended.STOPPED,
        }  # fmt: skip
        model = _environment().createModel()
        parameters: dict[str, float] = {
            "Logging": 0,
            "LogToConsole": 0,
            "RelGap": job.gap,
            "AbsGap": 0.0,
            "FeasTol": TOLERANCE,
            "DualTol": TOLERANCE,
            "IntTol": TOLERANCE,
        }
        if job.seconds is not None:
            parameters["TimeLimit"] = job.seconds
        for name, value in parameters.items():
            model.setParam(name, value)
        x = _build(model, job)
        told = threading.Event()

        def solve(tell: Tell) -> Ended:
            class News(coptpy.CallbackBase):
                def callback(self) -> None:
                    if told.is_set():
                        self.interrupt()
                    elif self.where() == COPT.CBCONTEXT_MIPSOL:
                        tell(self.getSolution(x), -np.inf, 0)

            news = News()
            model.setCallback(news, COPT.CBCONTEXT_MIPSOL | COPT.CBCONTEXT_MIPNODE)
            model.solve()
            tell(model.getValues() if model.hasmipsol else None, model.bestbnd, int(model.nodecnt))
            return statuses.get(model.status, Ended.FAILED)

        yield Run(solve, told.set)


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


def _build(model: Any, job: Job) -> Any:
    """Hand over the matrices and the incumbent; the variables."""
    from coptpy import COPT

    matrices = job.matrices
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
    if job.start is not None:
        model.setMipStart(variables, job.start.tolist())
        model.loadMipStart()
    return variables
