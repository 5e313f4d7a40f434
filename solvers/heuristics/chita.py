"""CHITA: iterative hard thresholding with a line search, an active set, and an exact solve at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.control import Control
from solvers.hessian import Array, Hessian
from solvers.problem import Mask, SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome, Solver

PAST = 3
"""Steps t in a row without a gain after which longer ones are not tried."""
POWER_STEPS = 20
"""Products that the estimate of the largest eigenvalue takes."""


@dataclass(frozen=True)
class CHITA(Solver):
    """Benbaki et al. 2023: `v <- T(v - t H (v - w))`, T keeping the largest entries of every pool.

    The step t is taken from a growing grid that starts at one over the largest eigenvalue, the best of it:
    short steps leave the support as it is. Steps run on an active set of columns, those in use and those of
    the largest gradients beside them, until they gain little. Then the survivors are solved for exactly (on
    factors by Woodbury's identity), and all of it again from there while that gains. H is only multiplied
    with, so that any curvature will do.

    Attributes:
        steps: thresholdings between two exact solves at most.
        growth: factor between two steps t.
        tries: steps t looked at.
        active: columns of the active set, as a multiple of those in use.
        tolerance: relative gain below which thresholdings, and solves, end.
    """

    steps: int = 50
    growth: float = 2.0
    tries: int = 12
    active: float = 3.0
    tolerance: float = 1e-4

    name: ClassVar[str] = "chita"
    summary: ClassVar[str] = "iterative hard thresholding with line search and back-solve (CHITA)"
    variants: ClassVar[tuple[str, ...]] = ("joint",)

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        mask = control.warm_start
        if mask is None:
            mask = _largest(problem, problem.W**2)
        best, lowest = mask, problem.value(mask)
        control.report(lowest, -np.inf, mask=mask)
        V = np.where(mask, 0.0, problem.W)
        steps, solves = 0, 0
        while not control.stopped():
            mask, made = self._threshold(problem, V, control)
            steps, solves = steps + made, solves + 1
            value = problem.value(mask)
            gain = lowest - value
            if gain > 0.0:
                best, lowest = mask, value
                control.report(lowest, -np.inf, steps, best)
            if solves > 1 and gain <= self.tolerance * abs(lowest):
                break
            V = problem.weights(best)
        reason = control.stopped() or Status.FEASIBLE
        return Outcome(best, reason=reason, stats={"thresholdings": steps, "solves": solves})

    def _threshold(self, problem: SubsetProblem, V: Array, control: Control) -> tuple[Mask, int]:
        """The support that thresholdings from `V [m, n]` end in, and how many there were."""
        H, W = problem.hessian, problem.W
        gradient = H.matmul(V - W)
        used = V.any(axis=0)
        room = min(problem.n, int(np.ceil(self.active * max(int(used.sum()), 1))))
        columns = np.sort(
            np.argsort(-np.where(used, np.inf, (gradient**2).sum(axis=0)), kind="stable")[:room]
        )
        part = H.select(columns)
        D = np.where(np.isin(np.arange(problem.n), columns), 0.0, -W)
        product = H.matmul(D)
        pull, constant = product[:, columns], 0.5 * float((D * product).sum())
        weights, v = W[:, columns], V[:, columns]
        scores = np.full(W.shape, -1.0)

        def threshold(x: Array) -> Array:
            scores[:, columns] = x**2
            return np.where(_largest(problem, scores)[:, columns], 0.0, x)

        def objective(x: Array) -> tuple[float, Array]:
            d = x - weights
            product = part.matmul(d)
            return constant + float((d * (0.5 * product + pull)).sum()), product + pull

        value, g = objective(v)
        first = 1.0 / _largest_eigenvalue(part, len(W))
        made = 0
        while made < self.steps and not control.stopped():
            made += 1
            found = value, v, g
            worse = 0
            for j in range(self.tries):
                x = threshold(v - first * self.growth**j * g)
                trial = objective(x)
                if trial[0] < found[0]:
                    found, worse = (trial[0], x, trial[1]), 0
                elif (worse := worse + 1) == PAST:
                    break
            gain = value - found[0]
            value, v, g = found
            if gain <= self.tolerance * value:
                break
        scores[:, columns] = v**2
        return _largest(problem, scores), made


def _largest(problem: SubsetProblem, scores: Array) -> Mask:
    """The mask that keeps the largest scores `[m, n]` of every pool; columns by their sums."""
    pools = problem.pools
    ranked = scores.sum(axis=0, keepdims=True) if pools.coupled else scores
    return pools.expand(pools.smallest(ranked), problem.m)


def _largest_eigenvalue(hessian: Hessian, m: int) -> float:
    """About the largest eigenvalue of any row's curvature, by the power method, from above."""
    x = np.random.default_rng(0).standard_normal((m, hessian.n))
    size = 1.0
    for _ in range(POWER_STEPS):
        x = hessian.matmul(x / np.linalg.norm(x, axis=1, keepdims=True))
        size = float(np.linalg.norm(x, axis=1).max())
    return 1.05 * size
