"""OR-Tools CP-SAT on the selection variant: products linearised, coefficients scaled to integers."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from solvers.foreign.in_turn import Event, InTurn
from solvers.foreign.mixed_integer import Products
from solvers.foreign.models import BinaryQuadratic, binary_quadratic, rounded
from solvers.form.blocks import Part
from solvers.hessian import Array
from solvers.problem import SubsetProblem

BITS = 44
"""The scaled coefficients' absolute values add up to at most `2^BITS`, far inside 64-bit integers."""
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class CpSat(Products):
    """`min sum_i (A_ii / 2 - c_i) x_i + sum_{i<j} A_ij y_ij` with `y_ij = x_i and x_j`, in integers.

    One worker, so that the same seed gives the same answer on every machine. The bound is the better
    of CP-SAT's own, widened by what rounding to integers can do, and the split relaxation's.
    """

    limit: int = 100_000

    name: ClassVar[str] = "cp-sat"
    summary: ClassVar[str] = "OR-Tools CP-SAT on the selection variant in scaled integers"

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        if reason := super().refuses(problem):
            return reason
        try:
            importlib.import_module("ortools.sat.python.cp_model")
        except ImportError:
            return "OR-Tools can't be imported after highspy (both bring a libhighs); import ortools first"
        return None

    def solve_part(self, part: Part, turns: InTurn, d: Array | None) -> bool:
        """See `Foreign.solve_part`."""
        integers = in_integers(binary_quadratic(part.problem))
        turns.widening = max(turns.widening, integers.widening)
        return _solve(integers, part, turns)


@dataclass(frozen=True)
class Integers:
    """A binary quadratic programme in integers: `cost = (linear . x + sum quadratic_ij y_ij) / scale`.

    Attributes:
        scale: a power of two, so that scaling is exact and only the rounding to integers loses.
        linear: `[b, n]` integers, as floats.
        quadratic: `[b, n, n]` integers, as floats; the part above the diagonal counts.
        widening: no decision's cost lies more than this below its integer cost over the scale.
    """

    scale: float
    linear: Array
    quadratic: Array
    widening: float


def in_integers(programme: BinaryQuadratic) -> Integers:
    """Scale and round a programme's coefficients.

    With `e` the rounded minus the exact scaled coefficients, a decision's exact cost is its integer
    cost less its own `e`. It has k linear and `k (k - 1) / 2` quadratic terms, k the number of
    decisions pruned, so the sum of that many largest positive `e` bounds what rounding hides.
    """
    n = programme.A.shape[-1]
    upper = np.triu(programme.A, 1)
    linear = 0.5 * np.diagonal(programme.A, axis1=1, axis2=2) - programme.c
    total = float(np.abs(upper).sum() + np.abs(linear).sum())
    scale = 2.0 ** (BITS - math.ceil(math.log2(total))) if total > 0.0 else 1.0
    rounded_linear, rounded_upper = np.rint(scale * linear), np.rint(scale * upper)
    k = int(programme.prune.sum())
    excess = _largest(rounded_linear - scale * linear, k)
    excess += _largest(rounded_upper - scale * upper, min(k * (k - 1) // 2, len(upper) * n * (n - 1) // 2))
    return Integers(scale, rounded_linear, rounded_upper, excess / scale + float(programme.rounding.sum()))


def _largest(errors: Array, count: int) -> float:
    """Upper bound on the sum of `count` errors: that of the largest positive ones."""
    positive = np.sort(errors[errors > 0.0])[::-1][:count]
    return math.fsum(positive) * (1.0 + 1e-12)


def _solve(integers: Integers, part: Part, turns: InTurn) -> bool:
    from ortools.sat.python import cp_model

    pools = part.problem.pools
    model = cp_model.CpModel()
    x = np.array([[model.new_bool_var("") for _ in row] for row in pools.labels], dtype=object)
    for p, count in enumerate(pools.prune):
        model.add(cp_model.LinearExpr.sum(x[pools.labels == p].tolist()) == int(count))
    hint = pools.decisions(part.mask)
    terms = list(x.ravel())
    coefficients = integers.linear.astype(np.int64).ravel().tolist()
    for variable, pruned in zip(terms, hint.ravel().tolist(), strict=True):
        model.add_hint(variable, pruned)
    for b, i, j in np.argwhere(integers.quadratic != 0.0).tolist():
        both = model.new_bool_var("")
        model.add_bool_or(~x[b, i], ~x[b, j], both)
        model.add_implication(both, x[b, i])
        model.add_implication(both, x[b, j])
        model.add_hint(both, bool(hint[b, i] and hint[b, j]))
        terms.append(both)
        coefficients.append(int(integers.quadratic[b, i, j]))
    model.minimize(cp_model.LinearExpr.weighted_sum(terms, coefficients))

    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.catch_sigint_signal = False
    solver.parameters.linearization_level = 2
    solver.parameters.random_seed = turns.control.seed % 2**31
    solver.parameters.relative_gap_limit = max(0.0, part.gap - integers.widening / max(abs(part.value), TINY))
    if part.seconds is not None:
        solver.parameters.max_time_in_seconds = part.seconds

    def claim(dual: float) -> float:
        return dual / integers.scale - integers.widening

    def solve(report: Callable[[Event], None]) -> bool:
        class News(cp_model.CpSolverSolutionCallback):
            def on_solution_callback(self) -> None:
                report(Event(_mask(self.boolean_value), claim(self.best_objective_bound), self.num_branches))

        def _mask(value: Callable[[Any], bool]) -> Any:
            return rounded(part.problem, np.array([[float(value(v)) for v in row] for row in x]))

        solver.best_bound_callback = lambda dual: report(Event(None, claim(dual)))
        status = solver.solve(model, News())
        finished = status == cp_model.OPTIMAL
        mask = _mask(solver.boolean_value) if finished or status == cp_model.FEASIBLE else None
        report(Event(mask, claim(solver.best_objective_bound), solver.num_branches))
        return finished

    return not turns.watch(part, solve, solver.stop_search) and part.seconds is not None
