"""HiGHS on the selection variant, which it takes only linearised: it has no mixed-integer quadratics."""

from __future__ import annotations

import contextlib
import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from solvers.foreign.in_turn import Event, InTurn
from solvers.foreign.mixed_integer import SHARE, Products
from solvers.foreign.models import TOLERANCE, WIDENING, BinaryQuadratic, binary_quadratic, rounded
from solvers.form.blocks import Part
from solvers.hessian import Array
from solvers.problem import Mask

PROCESS = Path(__file__).with_name("highs_process.py")


@dataclass(frozen=True)
class Highs(Products):
    """`min sum_i (A_ii / 2 - c_i) x_i + sum_{i<j} A_ij y_ij` with `y_ij = x_i x_j`, as a linear programme.

    The bound is the better of HiGHS' own, widened by what its tolerances can do, and the split
    relaxation's. HiGHS runs in a process of its own, see `solvers.foreign.highs_process`.
    """

    limit: int = 20_000

    name: ClassVar[str] = "highs"
    summary: ClassVar[str] = "HiGHS on the selection variant, its products linearised"
    requires: ClassVar[tuple[str, ...]] = ("highspy",)
    wheel: ClassVar[str] = "highspy>=1.15"

    def solve_part(self, part: Part, turns: InTurn, d: Array | None) -> bool:
        """See `Foreign.solve_part`."""
        quadratic = binary_quadratic(part.problem)
        unit = max(abs(part.value), WIDENING * part.problem.scale, np.finfo(float).tiny)
        model = linearised(quadratic, part.problem.pools.decisions(part.mask), unit)
        widening = float(quadratic.rounding.sum()) + unit * (WIDENING + TOLERANCE * len(model.c))
        turns.widening = max(turns.widening, widening)
        gap = SHARE * max(0.0, part.gap - widening / unit)
        return _solve(model, part, turns, gap, lambda dual: unit * dual - widening)


@dataclass(frozen=True)
class Linearised:
    """`min c.x` over `lower <= A x <= upper`, `0 <= x <= 1`, the first `decisions` variables binary.

    Attributes:
        c: `[N]`.
        A: `[rows, N]`.
        lower: `[rows]`.
        upper: `[rows]`.
        decisions: number of binary variables; products follow them.
        start: `[N]` the incumbent.
    """

    c: Array
    A: sp.csr_array
    lower: Array
    upper: Array
    decisions: int
    start: Array


def linearised(quadratic: BinaryQuadratic, incumbent: Mask, unit: float) -> Linearised:
    """A binary quadratic programme over `unit`, with a variable for every product.

    Beside `y_ij <= x_i`, `y_ij <= x_j` and `y_ij >= x_i + x_j - 1`, one row of decisions gets every count
    times every decision, `sum_{j in pool, j != i} y_ij = (count - [i in pool]) x_i`, without which the
    linear relaxation says next to nothing (level 1 of Sherali & Adams 1990).
    """
    rows, n = quadratic.labels.shape
    i, j = np.triu_indices(n, 1)
    offsets = n * np.repeat(np.arange(rows), len(i))
    first, second = np.tile(i, rows) + offsets, np.tile(j, rows) + offsets
    size, pairs, pools = rows * n, len(first), len(quadratic.prune)
    labels, prune = quadratic.labels.ravel(), quadratic.prune.astype(np.float64)

    one, each = np.ones(pairs), np.arange(pairs)
    X1 = sp.csr_array((one, (each, first)), shape=(pairs, size))
    X2 = sp.csr_array((one, (each, second)), shape=(pairs, size))
    Y = sp.eye_array(pairs, format="csr")
    counts = sp.csr_array((np.ones(size), (labels, np.arange(size))), shape=(pools, size))
    blocks = [(counts, None, prune, prune)]
    blocks += [(-X, Y, np.full(pairs, -np.inf), np.zeros(pairs)) for X in (X1, X2)]
    blocks += [(X1 + X2, -Y, np.full(pairs, -np.inf), one)]
    if rows == 1:
        where = (
            np.concatenate([labels[second], labels[first]]) * n + np.concatenate([first, second]),
            np.tile(each, 2),
        )
        sums = sp.csr_array((np.ones(2 * pairs), where), shape=(pools * n, pairs))
        own = np.arange(pools)[:, None] == labels
        times = (own - prune[:, None]).ravel()
        x = sp.csr_array((times, (np.arange(pools * n), np.tile(np.arange(n), pools))), shape=(pools * n, n))
        blocks += [(x, sums, np.zeros(pools * n), np.zeros(pools * n))]
    x0 = incumbent.ravel().astype(np.float64)
    linear = 0.5 * np.diagonal(quadratic.A, axis1=1, axis2=2) - quadratic.c
    return Linearised(
        c=np.concatenate([linear.ravel(), quadratic.A[:, i, j].ravel()]) / unit,
        A=sp.csr_array(sp.block_array([[x, y] for x, y, _, _ in blocks])),
        lower=np.concatenate([lower for _, _, lower, _ in blocks]),
        upper=np.concatenate([upper for _, _, _, upper in blocks]),
        decisions=size,
        start=np.concatenate([x0, x0[first] * x0[second]]),
    )


def _solve(model: Linearised, part: Part, turns: InTurn, gap: float, claim: Callable[[float], float]) -> bool:
    options: dict[str, float | bool] = {
        "output_flag": False,
        "random_seed": turns.control.seed % 2**31,
        "mip_rel_gap": gap,
        "mip_abs_gap": 0.0,
        "mip_feasibility_tolerance": TOLERANCE,
        "primal_feasibility_tolerance": TOLERANCE,
        "dual_feasibility_tolerance": TOLERANCE,
    }
    if part.seconds is not None:
        options["time_limit"] = part.seconds
    shape = part.problem.pools.labels.shape
    archive = io.BytesIO()
    np.savez(
        archive, c=model.c, integer=np.arange(len(model.c)) < model.decisions,
        indptr=model.A.indptr, indices=model.A.indices, data=model.A.data,
        lower=model.lower, upper=model.upper, start=model.start, options=json.dumps(options),
    )  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-P", str(PROCESS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    killed = False

    def kill() -> None:
        nonlocal killed
        killed = True
        process.kill()

    def solve(report: Callable[[Event], None]) -> str:
        status = ""
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with contextlib.suppress(BrokenPipeError):  # killed before it has read its problem
            process.stdin.write(archive.getbuffer())
            process.stdin.close()
        for line in process.stdout:
            news = json.loads(line)
            x = None if news["x"] is None else np.reshape(news["x"], shape).astype(np.float64)
            mask = None if x is None else rounded(part.problem, x)
            report(
                Event(mask, claim(news["dual"]) if math.isfinite(news["dual"]) else -np.inf, news["nodes"])
            )
            status = news.get("status", "")
        complaint = process.stderr.read().decode().strip()
        if process.wait() and not killed:
            raise RuntimeError(f"HiGHS failed: {complaint or process.returncode}")
        return status

    with process:
        return turns.watch(part, solve, kill) == "Time limit reached"
