"""CHITA: iterative hard thresholding with a line search, an active set, and exact solves in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from solvers.budget import Pools
from solvers.control import Control
from solvers.hessian import Array, FactorHessian, Hessian
from solvers.hessian.base import Index
from solvers.problem import Mask, SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome, Solver

BEYOND = 1.0 + 1e-9
"""How far past a change of the support a step goes that is meant to make it."""
POWER_STEPS = 20
"""Products that the estimate of the largest eigenvalue takes."""


@dataclass(frozen=True)
class CHITA(Solver):
    """Benbaki et al. 2023: `v <- T(v - t H (v - w))`, where T keeps the largest entries of every pool.

    Three things repeat while that gains:

    1. Choose an active set of columns: those in use, and of the others those of the largest gradients.
    2. Take thresholding steps on it until they gain little. A step tries a growing grid of lengths t, all in
       one product, and keeps the best. The grid starts at one over the largest eigenvalue of H, or at the
       first length that changes the support if that is larger: after an exact solve the gradient is zero on
       the support, and shorter steps change nothing.
    3. Solve for the survivors exactly (on factors by Woodbury's identity).

    Without a warm start, larger numbers of survivors come first, falling geometrically to the budget's, each
    stage from the result of the one before. H is only multiplied with, so that any curvature will do;
    products with a factor are in its own precision while thresholding.

    Attributes:
        steps: thresholdings between two exact solves at most.
        fall: survivors of a stage on the way to the budget's, as a share of those before.
        stage_steps: thresholdings of a stage at most.
        growth: factor between two steps t.
        tries: steps t looked at.
        active: columns of the active set, as a multiple of those in use.
        tolerance: relative gain below which thresholdings, and solves, end.
    """

    steps: int = 30
    fall: float = 0.72
    stage_steps: int = 6
    growth: float = 1.6
    tries: int = 16
    active: float = 3.0
    tolerance: float = 1e-4

    name: ClassVar[str] = "chita"
    summary: ClassVar[str] = "iterative hard thresholding with line search and back-solve (CHITA)"
    variants: ClassVar[tuple[str, ...]] = ("joint",)

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        best, V = control.warm_start, problem.W
        if best is None:
            best = largest(problem.pools, problem.W**2)
        lowest = problem.value(best)
        control.report(lowest, -np.inf, mask=best)
        steps, solves, shortest = 0, 0, 1.0 / _largest_eigenvalue(problem.hessian, problem.m)
        if control.warm_start is None:
            for pools in _path(problem.pools, self.fall):
                if control.stopped():
                    break
                V = np.where(largest(pools, V**2), 0.0, V)
                mask, made = self._threshold(problem, pools, V, shortest, self.stage_steps, control)
                V = np.where(mask, 0.0, problem.W + problem.move(mask))
                steps, solves = steps + made, solves + 1
        starts = [np.where(best, 0.0, problem.W), np.where(largest(problem.pools, V**2), 0.0, V)]
        for V in starts:
            known = np.inf
            while not control.stopped():
                mask, made = self._threshold(problem, problem.pools, V, shortest, self.steps, control)
                steps, solves = steps + made, solves + 1
                value = problem.value(mask)
                if value < lowest:
                    best, lowest = mask, value
                    control.report(lowest, -np.inf, steps, best)
                if value >= known * (1.0 - self.tolerance):
                    break
                known, V = value, problem.weights(mask)
        reason = control.stopped() or Status.FEASIBLE
        return Outcome(best, reason=reason, stats={"thresholdings": steps, "solves": solves})

    def _threshold(
        self, problem: SubsetProblem, pools: Pools, V: Array, shortest: float, steps: int, control: Control
    ) -> tuple[Mask, int]:
        """The support that thresholdings from `V [m, n]` end in, and how many there were."""
        H, W = problem.hessian, problem.W
        gradient = H.matmul(V - W)
        used = V.any(axis=0)
        room = min(problem.n, int(np.ceil(self.active * max(int(used.sum()), 1))))
        columns = np.sort(
            np.argsort(-np.where(used, np.inf, (gradient**2).sum(axis=0)), kind="stable")[:room]
        )
        part = H if room == problem.n else H.select(columns)
        precision = part.X.dtype if isinstance(part, FactorHessian) else np.dtype(np.float64)
        D = np.where(np.isin(np.arange(problem.n), columns), 0.0, -W)
        product = H.matmul(D)
        pull, constant = product[:, columns], 0.5 * float((D * product).sum())
        weights, v = W[:, columns], V[:, columns]
        scores = np.full(W.shape, -1.0)

        def threshold(x: Array) -> Array:
            scores[:, columns] = x**2
            return np.where(largest(pools, scores)[:, columns], 0.0, x)

        def objectives(trials: list[Array]) -> tuple[Array, Array]:
            d = np.stack(trials) - weights
            if part.shared:
                product = part.matmul(d.reshape(-1, d.shape[2]).astype(precision)).reshape(d.shape)
            else:
                product = np.stack([part.matmul(one) for one in d])
            return constant + (d * (0.5 * product + pull)).sum(axis=(1, 2)), product + pull

        (value,), (g,) = objectives([v])
        made = 0
        while made < steps and not control.stopped():
            made += 1
            first = max(shortest, BEYOND * _first_change(pools, columns, v, g))
            trials = [threshold(v - shortest * g)]
            trials += [threshold(v - first * self.growth**j * g) for j in range(self.tries)]
            values, gradients = objectives(trials)
            j = int(np.argmin(values))
            gain = value - values[j]
            if gain > 0.0:
                value, v, g = values[j], trials[j], gradients[j]
            if gain <= self.tolerance * value:
                break
        scores[:, columns] = v**2
        return largest(pools, scores), made


def largest(pools: Pools, scores: Array) -> Mask:
    """The mask that keeps the largest scores `[m, n]` of every pool; columns by their sums."""
    ranked = scores.sum(axis=0, keepdims=True) if pools.coupled else scores
    return pools.expand(pools.smallest(ranked), len(scores))


def _path(pools: Pools, fall: float) -> Iterator[Pools]:
    """The pools with more survivors than asked for, falling to the budget's own, which is left out."""
    share, before = fall, np.zeros_like(pools.prune)
    while True:
        prune = np.minimum(pools.prune, pools.sizes - np.floor(share * pools.sizes).astype(np.int64))
        if (prune == pools.prune).all():
            return
        if (prune != before).any():
            yield replace(pools, prune=prune)
        share, before = share * fall, prune


def _first_change(pools: Pools, columns: Index, v: Array, g: Array) -> float:
    """The least step at which an entry from outside the support may pass one inside: zero if it moves."""
    labels = np.broadcast_to(pools.labels[:, columns], v.shape)
    inside = v != 0.0
    least, most = np.full(len(pools.prune), np.inf), np.zeros(len(pools.prune))
    np.minimum.at(least, labels[inside], np.abs(v[inside]))
    np.maximum.at(most, labels[~inside], np.abs(g[~inside]))
    able = np.isfinite(least) & (most > 0.0)
    return float((least[able] / most[able]).min(initial=np.inf)) if able.any() else 0.0


def _largest_eigenvalue(hessian: Hessian, m: int) -> float:
    """About the largest eigenvalue of any row's curvature, by the power method, from above."""
    x = np.random.default_rng(0).standard_normal((m, hessian.n))
    size = 1.0
    for _ in range(POWER_STEPS):
        x = hessian.matmul(x / np.linalg.norm(x, axis=1, keepdims=True))
        size = float(np.linalg.norm(x, axis=1).max())
    return 1.05 * size
