"""Alternating directions (ADMM) with an annealed penalty, for all rows of a layer at once.

The penalty rises as slowly as the time allows: slow rises end in better masks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from solvers.heuristics.layer.scaled import Layer, cholesky, refit, residual, row_costs
from solvers.runtime.tensors import Tensor, torch

STEPS = 3
"""Steps between two penalties."""
WARM, LAST, LONGEST = 0.7, 2.5, 25.0
"""Penalties, in geometric means of the curvature's eigenvalues: where a rise (a "course") from a mask starts,
where it has come to after all its stages, and where it ends at the latest."""
BELOW, ABOVE = 0.45, 0.25
"""A course of K stages from dense weights takes the penalty from `1 / (1 + BELOW log2 K)` to
`1 + ABOVE log2 K` of these."""
SETTLED = 3e-4
"""Part of the kept entries that may still change from one penalty to the next at the end."""
NOISE = 0.02
"""Relative size of the noise that makes the courses from one mask differ."""
GAIN = 1e-5
"""Least relative gain: single precision tells no smaller ones."""
REFIT = 40
"""Steps of conjugate gradients when masks are compared."""

Stop = Callable[[], object]


class Refitted(NamedTuple):
    """A mask, and what a refit of its survivors gives.

    Attributes:
        pruned: `[m, n]` bool.
        weights: `[m, n]`, zero where pruned.
        left: `[m, n]` `residual`.
        costs: `[m]`.
    """

    pruned: Tensor
    weights: Tensor
    left: Tensor
    costs: Tensor

    def take(self, better: Refitted, rows: Tensor) -> None:
        """Put rows of another one in, in place: row k of `better` at `rows[k]`."""
        for own, other in zip(self, better, strict=True):
            own[rows] = other


class _Course(NamedTuple):
    """A rise of the penalty, in geometric means of the curvature's eigenvalues.

    Attributes:
        first: where it starts.
        last: where it is to be when its stages, or its time, are over.
        growth: least factor from a stage to the next.
    """

    first: float
    last: float
    growth: float

    @classmethod
    def of(cls, stages: int) -> _Course:
        """From dense weights: the shorter, the narrower."""
        doublings = math.log2(max(1, stages))
        first, last = 1.0 / (1.0 + BELOW * doublings), 1.0 + ABOVE * doublings
        return cls(first, last, max((last / first) ** (1.0 / max(1, stages - 1)), 1.0 + 1.0 / max(1, stages)))


class Annealing:
    """ADMM on `1/2 (w0 - w) H (w0 - w)'` subject to `w = d`, d sparse; the penalty rho rises by a factor.

    With `y = w + v / rho`, v the multiplier, the iteration of ALPS (Meng et al. 2024, eq. 5) is

        w = (H w0 + rho (2 d - y)) (H + rho I)^-1,   y <- w + y - d,   d <- largest entries of y

    Twice the steps are worth more than most searches from the mask of a quick rise, so the factor is set by
    the time that is left, stage by stage. On a `leveled` `Layer` the largest entries are those that cost most
    to prune, which is worth as much again. (The paper's own schedule: `published.alps`.)

    Attributes:
        stage_seconds: what one stage takes: about, or as the quickest of a course did.
        refit_seconds: what `refitted` takes, about.

    Args:
        layer: what to prune.
        seed: of the noise.
    """

    stage_seconds: float
    refit_seconds: float

    def __init__(self, layer: Layer, seed: int = 0) -> None:
        self.layer = layer
        product = math.inf
        for _ in range(2):  # the first one may wait for threads and memory
            began = time.perf_counter()
            self._b = layer.W @ layer.H
            product = min(product, time.perf_counter() - began)
        self.refit_seconds = 1.3 * REFIT * product
        self.stage_seconds = product * (STEPS + self._factoring())
        self._unit = layer.mean_eigenvalue
        self._random = torch.Generator(layer.device).manual_seed(seed)

    def saliency(self) -> Tensor:
        """`[m, n]` bool: the entries that cost least, as the layer's scales have it."""
        return self.layer.pick(self.layer.W**2)

    def start(
        self, *, stages: int = 30, deadline: float | None = None, stopped: Stop = lambda: None
    ) -> tuple[Tensor, int]:
        """A course from the dense weights.

        Args:
            stages: penalties on the way, of `STEPS` steps each.
            deadline: `time.perf_counter()` by which the course should end; shortens it to fewer stages than
                given, never lengthens it. One stage is done in any case.
            stopped: polled; a true answer ends the course, with one more stage if the penalty is still low.

        Returns:
            The pruned entries `[m, n]`, and the steps taken.
        """
        course = _Course.of(stages)
        if deadline is not None:
            span = _Course.of(max(1, min(stages, self._room(deadline))))
            course = _Course(span.first, span.last, course.growth)
        return self._run(self.saliency(), self.layer.W.clone(), course, deadline, stopped)

    def reheat(
        self, state: Refitted, *, stages: int = 10, stopped: Stop = lambda: None
    ) -> tuple[Tensor, int]:
        """A course from a mask: its refitted weights, and the pull on pruned entries, are a fixed point.

        Args:
            state: of all rows.
            stages: as in `start`.
            stopped: as in `start`.
        """
        pull = state.left * state.pruned
        y = torch.add(state.weights, pull, alpha=1.0 / (WARM * self._unit))
        y *= 1.0 + NOISE * torch.randn(y.shape, generator=self._random, device=y.device)
        course = _Course(WARM, LAST, (LAST / WARM) ** (1.0 / max(1, stages - 1)))
        return self._run(state.pruned, y, course, None, stopped)

    def refitted(self, pruned: Tensor, rows: Tensor | None = None) -> Refitted:
        """A mask `[m, n]` (or of some rows) with its survivors refitted: close enough to compare masks."""
        H, W = self.layer.H, self.layer.W if rows is None else self.layer.W[rows]
        weights = W * ~pruned
        weights, left = refit(H, ~pruned, weights, residual(H, W, weights), steps=REFIT, tolerance=1e-4)
        return Refitted(pruned, weights, left, row_costs(W, weights, left))

    def _run(
        self, pruned: Tensor, y: Tensor, course: _Course, deadline: float | None, stopped: Stop
    ) -> tuple[Tensor, int]:
        layer, d = self.layer, y * ~pruned
        rho, last, steps = course.first * self._unit, course.last * self._unit, 0
        halted, quickest = False, math.inf
        while not halted:
            halted = bool(stopped())
            if halted:
                if steps == 0 or rho >= self._unit:
                    break
                y, rho = d + (y - d) * (rho / self._unit), self._unit
            began, before = time.perf_counter(), pruned
            solve = self._solver(rho)
            for _ in range(STEPS):
                w = solve(torch.sub(d, y, alpha=0.5).mul_(2.0 * rho).add_(self._b))
                y.sub_(d).add_(w)
                pruned = layer.pick(y * y)
                torch.mul(y, ~pruned, out=d)
            steps += STEPS
            changed = int((pruned ^ before).sum())
            if rho >= LONGEST * self._unit or (
                rho >= self._unit and changed <= SETTLED * int((~pruned).sum())
            ):
                break
            factor = course.growth
            quickest = min(quickest, time.perf_counter() - began)
            self.stage_seconds = quickest
            if deadline is not None:
                left = self._room(deadline)
                if left < 1:
                    break
                factor = max(factor, (last / rho) ** (1.0 / left))
            rho *= factor
            y = d + (y - d) / factor
        return pruned, steps

    def _room(self, deadline: float) -> int:
        """How many stages there is time for."""
        return int((deadline - time.perf_counter()) / self.stage_seconds)

    def _factoring(self) -> float:
        """What `_solver` takes, in products of `[m, n]` with `[n, n]`; a factor runs at half their speed."""
        m, n = self.layer.W.shape
        return n / (3.0 * m) if 2 * m < n else n / m

    def _solver(self, rho: float) -> Callable[[Tensor], Tensor]:
        """Products of `[m, n]` with `(H + rho I)^-1`."""
        A = self.layer.H.clone()
        A.diagonal().add_(rho)
        L = cholesky(A)
        if 2 * self.layer.m < self.layer.n:
            return lambda rows: torch.cholesky_solve(rows.T, L).T
        inverse = torch.cholesky_inverse(L)
        return lambda rows: rows @ inverse
