"""CVXPY as an exact solver: the mixed-integer models written in it, and solved by what it finds installed.

SCIP is given the cones of the model. Solvers of linear programmes are given tangents instead, and more of
them where a solution lies beyond a cone, until none does by more than the gap (Kelley's cutting planes).
"""

from __future__ import annotations

import atexit
import importlib.util
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.sparse as sp

from solvers.foreign.mixed_integer import Ended, Job, MixedInteger, Run, Tell
from solvers.foreign.models import TOLERANCE
from solvers.foreign.programme import Programme, size
from solvers.foreign.scip import FEASIBILITY, OBJECTIVE
from solvers.hessian import Array
from solvers.problem import SubsetProblem

PROCESS = Path(__file__).with_name("cvxpy_process.py")
VARIABLES = 2000
"""Most variables of one model."""
DOUBT = 4.0
"""A tangent that a solution is beyond by less than this many tolerances says nothing new."""
PATIENCE = 0.9
"""Share of a time limit that is left to the solver inside, which tells its bound only at its end."""


class BackEnd(NamedTuple):
    """What is known of a solver that CVXPY may find; how it is driven stands in `cvxpy_process`.

    Attributes:
        module: what it is imported as.
        wheel: what `pip install` takes to install it.
        cones: whether it is given cones, and not tangents.
        tolerance: how far its solutions may lie beyond a constraint.
        factor: of the objective, so that a tolerance on costs is `TOLERANCE` of their unit.
    """

    module: str
    wheel: str
    cones: bool = False
    tolerance: float = TOLERANCE
    factor: float = 1.0


BACK_ENDS = {
    "SCIP": BackEnd("pyscipopt", "pyscipopt>=5.0", True, FEASIBILITY, OBJECTIVE),
    "HIGHS": BackEnd("highspy", "highspy>=1.15"),
    "SCIPY": BackEnd("scipy", "scipy", tolerance=1e-6),  # HiGHS at its own tolerances: no option reaches them
    "GUROBI": BackEnd("gurobipy", "gurobipy>=11"),
}
"""The first one that is installed is taken. Gurobi is last: its free licence takes small models only."""
STATUSES = {
    "optimal": Ended.DONE, "optimal_inaccurate": Ended.TIME, "user_limit": Ended.TIME,
}  # fmt: skip


@dataclass(frozen=True)
class Cvxpy(MixedInteger):
    """CVXPY.

    Attributes:
        back_end: CVXPY's name of the solver to take, or None for the first of `BACK_ENDS` installed.
    """

    back_end: str | None = None

    product: ClassVar[str] = "CVXPY"
    factored: ClassVar[bool] = True
    requires: ClassVar[tuple[str, ...]] = ("cvxpy",)

    @property
    def summary(self) -> str:  # type: ignore[override]
        """See `Solver.summary`."""
        model = "split-strengthened (perspective) model" if self.strengthen else "plain big-M model"
        return f"CVXPY, by SCIP or else HiGHS, on the {model}" + (
            "" if self.strengthen else ", for comparison"
        )

    @property
    def chosen(self) -> str:
        """The back end's name."""
        if self.back_end is not None:
            return self.back_end
        return next(name for name, each in BACK_ENDS.items() if importlib.util.find_spec(each.module))

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        name = self.chosen
        if name not in BACK_ENDS:
            return f"back_end {name!r} is not known, only {', '.join(BACK_ENDS)}"
        if importlib.util.find_spec(BACK_ENDS[name].module) is None:
            return f"CVXPY's back end {name} is not installed: pip install '{BACK_ENDS[name].wheel}'"
        variables, _ = size(problem, self.strengthen, factored=True)
        if variables > VARIABLES:
            return f"its model has {variables} variables, more than {VARIABLES}; try branch-and-bound"
        return None

    def prepare(self, like: SubsetProblem | None = None) -> None:
        """See `Solver.prepare`."""
        super().prepare(like)
        with _worker():
            return

    @contextmanager
    def open(self, job: Job) -> Iterator[Run]:
        """See `MixedInteger.open`."""
        back_end, matrices = BACK_ENDS[self.chosen], in_cones(job.matrices, job.reach)
        deadline = None if job.seconds is None else time.perf_counter() + PATIENCE * job.seconds
        with _worker() as worker:

            def solve(tell: Tell) -> Ended:
                nodes, rows = 0, matrices
                if not back_end.cones:
                    rows = _with_rows(matrices, *matrices.first_tangents())
                gap = job.gap if back_end.cones else 0.5 * job.gap
                while True:
                    left = None if deadline is None else max(1e-3, deadline - time.perf_counter())
                    answer = worker.ask(_archive(rows, job, back_end, self.chosen, gap, left))
                    if answer is None and worker.killed:
                        return Ended.STOPPED
                    if answer is None:
                        raise RuntimeError(f"CVXPY's process with {self.chosen} has died")
                    if "error" in answer:
                        raise RuntimeError(f"CVXPY with {self.chosen} failed: {answer['error']}")
                    nodes += answer["nodes"]
                    x = None if answer["x"] is None else np.array(answer["x"])
                    dual = -np.inf if answer["dual"] is None else answer["dual"]
                    dual -= (back_end.tolerance / back_end.factor - TOLERANCE) * len(rows.b)
                    tell(x, dual, nodes)
                    ended = STATUSES.get(answer["status"], Ended.FAILED)
                    if back_end.cones or ended is not Ended.DONE or x is None:
                        return ended
                    cost = _cost(matrices, x)
                    A, b = matrices.tangents(x)
                    beyond = A @ x - b > DOUBT * back_end.tolerance
                    if not beyond.any() or cost - dual <= job.gap * abs(cost):
                        return ended
                    rows = _with_rows(rows, A[beyond], b[beyond])

            yield Run(solve, worker.kill)


def in_cones(matrices: Programme, reach: float) -> Programme:
    """A factored programme with a linear objective: `1/2 y^2` is `1/2 e` with `y^2 <= e o`, and `o = 1`.

    The variable o also takes the constant, which gaps relative to the objective are relative to.

    Args:
        matrices: whose `Q` is diagonal, of zeros and ones.
        reach: largest sum of the squares worth a look.
    """
    squares, top = np.flatnonzero(matrices.Q.diagonal()), 1.0 + 1e-6
    N, K = len(matrices.c), len(squares)
    lower, upper = matrices.lower.copy(), matrices.upper.copy()
    lower[squares], upper[squares] = -top * reach**0.5, top * reach**0.5
    new = np.stack([squares, N + np.arange(K), np.full(K, N + K)], axis=1)
    more = sp.csr_array((matrices.A.shape[0], K + 1))
    return replace(
        matrices,
        Q=sp.csr_array((N + K + 1, N + K + 1)),
        c=np.concatenate([matrices.c, np.full(K, 0.5), [matrices.constant]]),
        constant=0.0,
        A=sp.csr_array(sp.hstack([matrices.A, more])),
        lower=np.concatenate([lower, np.zeros(K), [1.0]]),
        upper=np.concatenate([upper, np.full(K, top**2 * reach), [1.0]]),
        cones=np.concatenate([matrices.cones, new]),
        centres=np.concatenate([matrices.centres, np.zeros(K)]),
        start=np.concatenate([matrices.start, matrices.start[squares] ** 2, [1.0]]),
        names=(*matrices.names, *(f"e_{k}" for k in range(K)), "o"),
    )


def _with_rows(matrices: Programme, A: sp.csr_array, b: Array) -> Programme:
    """With more inequalities, and no cones."""
    return replace(
        matrices, A=sp.csr_array(sp.vstack([matrices.A, A])), b=np.concatenate([matrices.b, b]),
        cones=np.zeros((0, 3), dtype=np.int64),
    )  # fmt: skip


def _cost(matrices: Programme, x: Array) -> float:
    """The objective with every square as large as its cone says."""
    V, S, Z = x[matrices.cones].T
    short = np.maximum(np.where(Z > 0.5, V * V, 0.0) - S, 0.0)
    return float(matrices.c @ x + matrices.c[matrices.cones[:, 1]] @ short)


def _archive(
    matrices: Programme, job: Job, back_end: BackEnd, name: str, gap: float, seconds: float | None
) -> bytes:
    options = {
        "back_end": name, "equalities": matrices.equalities, "binary": int(matrices.decisions.size),
        "gap": gap, "seconds": seconds, "seed": job.seed, "tolerance": back_end.tolerance,
        "factor": back_end.factor,
    }  # fmt: skip
    start = np.zeros(0) if job.start is None else matrices.start
    A, archive = matrices.A, io.BytesIO()
    np.savez(
        archive, c=matrices.c, indptr=A.indptr, indices=A.indices, data=A.data, b=matrices.b,
        lower=matrices.lower, upper=matrices.upper, cones=matrices.cones, start=start,
        options=json.dumps(options),
    )  # fmt: skip
    return archive.getvalue()


class Worker:
    """A process that runs `cvxpy_process`, for one model at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(PROCESS)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.killed = False
        try:
            self._answer()  # which solvers there are: it is ready
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return not self.killed and self._process.poll() is None

    def ask(self, archive: bytes) -> dict[str, Any] | None:
        """What it answers, or None if it was killed."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(len(archive).to_bytes(8, "big") + archive)
            self._process.stdin.flush()
        return self._answer()

    def kill(self) -> None:
        """End it, whatever it does."""
        self.killed = True
        self._process.kill()

    def close(self) -> None:
        """End it and let go of its pipes."""
        self.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else None


_idle: list[Worker] = []
_lock = threading.Lock()


@contextmanager
def _worker() -> Iterator[Worker]:
    """A process that is ready: an idle one, or a new one; it is kept for the next model if it still lives."""
    with _lock:
        worker = _idle.pop() if _idle else None
    if worker is not None and not worker.alive:
        worker.close()
        worker = None
    if worker is None:
        worker = Worker()
    try:
        yield worker
    finally:
        if worker.alive:
            with _lock:
                _idle.append(worker)
        else:
            worker.close()


@atexit.register
def _close() -> None:
    while _idle:
        _idle.pop().close()


os.register_at_fork(after_in_child=_idle.clear)
