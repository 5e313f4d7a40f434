"""Greedy primal heuristics: the cheapest weight next, after each of which the survivors move (OBS, OBC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.allocation import allocate
from solvers.budget import GROUPS, KINDS, UNITS
from solvers.control import Control
from solvers.greedy.curves import MEMORY, greedy_in_pools, row_curves
from solvers.greedy.one_at_a_time import surgeon_mask
from solvers.heuristics.factor_rows import greedy_factor_mask
from solvers.heuristics.rows.stacked import Columns
from solvers.heuristics.units import Units, unfit_for_units
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.parallel import workers
from solvers.runtime.rehearsal import rehearse
from solvers.solver import Outcome, Solver

SPEED = 1e10
"""Multiplications a second of a core, about."""


@dataclass(frozen=True)
class Greedy(Solver):
    """Row curves, and their exact allocation where rows share a pool (OBC, Frantar & Alistarh 2022).

    Attributes:
        memory: bytes that copies of curvatures may take, a row in work at a time at the least.
    """

    memory: int = MEMORY

    name: ClassVar[str] = "greedy"
    summary: ClassVar[str] = "cheapest weight first by row, rows allocated exactly"
    budgets: ClassVar[tuple[str, ...]] = (*KINDS, GROUPS, UNITS)

    def prepare(self, like: SubsetProblem | None = None) -> None:
        """See `Solver.prepare`."""
        rehearse(Greedy(), like)

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        return unfit_for_units(problem) or _no_wide_columns(problem)

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        mask = greedy_mask(problem, self.memory)
        control.report(problem.value(mask), -np.inf, mask=mask)
        return Outcome(mask)


@dataclass(frozen=True)
class OptimalBrainSurgeon(Solver):
    """One weight at a time over the whole pool, by `w_q^2 / (2 [H^-1]_qq)` (Hassibi & Stork 1992)."""

    name: ClassVar[str] = "obs"
    summary: ClassVar[str] = "Optimal Brain Surgeon: one weight at a time over the whole budget"
    variants: ClassVar[tuple[str, ...]] = ("joint",)

    def prepare(self, like: SubsetProblem | None = None) -> None:
        """See `Solver.prepare`."""
        rehearse(OptimalBrainSurgeon(), like)

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        return _no_wide_columns(problem)

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        if problem.hessian.implicit:
            mask = surgeon_mask(problem, control.stopped)
        elif problem.budget.kind == "per_layer":
            curves = row_curves(problem.W, problem.hessian)
            rises = np.diff(curves.values, axis=1)
            mask = curves.masks(_next_cheapest(rises, int(problem.pools.prune[0])))
        else:
            mask = greedy_mask(problem)
        control.report(problem.value(mask), -np.inf, mask=mask)
        return Outcome(mask)


def greedy_mask(problem: SubsetProblem, memory: int = MEMORY) -> Mask:
    """The mask of the greedy rule, for any budget of a reduced problem; in steps where no matrix is formed.

    Args:
        problem: what to prune.
        memory: bytes that copies of curvatures may take; see `solvers.greedy.curves.row_curves`.
    """
    pools = problem.pools
    if problem.hessian.implicit:
        return greedy_factor_mask(problem)
    if pools.width > 1:
        units = Units(problem, np.zeros(problem.n, dtype=bool))
        units.prune_cheapest(int(pools.prune[0]) // pools.width)
        return pools.expand(units.pruned[None], problem.m)
    if pools.coupled:
        columns = Columns(problem, np.zeros(problem.n, dtype=bool))
        columns.prune_cheapest(pools.prune)
        return pools.expand(columns.pruned[None], problem.m)
    if problem.budget.kind != "per_layer" or (problem.m == 1 and problem.refit):
        return greedy_in_pools(
            problem.W, problem.hessian, pools.labels, pools.prune,
            refit=problem.refit, gradient=problem.G, memory=memory,
        )  # fmt: skip
    total = int(pools.prune[0])
    curves = row_curves(problem.W, problem.hessian, refit=problem.refit, gradient=problem.G, memory=memory)
    if problem.G is not None:
        return curves.masks(_next_cheapest(np.diff(curves.values, axis=1), total))
    return curves.masks(allocate(list(curves.values), total))


def opening(problem: SubsetProblem, control: Control, memory: int = MEMORY) -> Mask:
    """Where a search starts: the warm start, else greedy's mask; the least `w_i^2 H_ii` if time is short.

    Args:
        problem: a reduced problem.
        control: limits.
        memory: as in `greedy_mask`.
    """
    if control.warm_start is not None:
        return control.warm_start
    if fits(problem, control):
        return greedy_mask(problem, memory)
    pools = problem.pools
    scores = problem.W**2 * problem.hessian.diagonal()
    if pools.coupled:
        scores = scores.sum(axis=0, keepdims=True)
    return pools.expand(pools.smallest(scores), problem.m)


def fits(problem: SubsetProblem, control: Control) -> bool:
    """Whether a time limit has room for greedy masks, which are not stopped on the way."""
    left = control.remaining
    return left is None or greedy_work(problem) <= SPEED * workers() * left


def greedy_work(problem: SubsetProblem) -> float:
    """Multiplications of greedy's masks, about."""
    m, n = problem.W.shape
    return float(m * n * n * (n if problem.refit else 60))


def _no_wide_columns(problem: SubsetProblem) -> str | None:
    shared = problem.m > 1 and problem.pools.coupled
    return (
        "its columns are too many for a matrix; take swapping"
        if problem.hessian.implicit and shared
        else None
    )


def _next_cheapest(rises: np.ndarray, total: int) -> np.ndarray:
    """Counts after taking, `total` times, the row whose next step rises least."""
    heads = np.maximum.accumulate(rises, axis=1)
    rows = np.repeat(np.arange(len(rises)), rises.shape[1])
    return np.bincount(rows[np.argsort(heads.ravel(), kind="stable")[:total]], minlength=len(rises))
