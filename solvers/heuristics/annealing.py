"""Alternating directions whose penalty anneals, at scales where entries compare, in the time there is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from solvers.heuristics.layer import Layer, Tensor
from solvers.heuristics.refit import refit, residual, row_costs

STEPS = 3
"""Steps between two penalties."""
FIRST, WARM, LAST, LONGEST = 0.25, 0.7, 2.5, 25.0
"""The penalty, in geometric means of the curvature's eigenvalues: where a course starts from dense weights,
and from a mask; where the given time or number of stages takes it; where it ends at the latest."""
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


class Annealing:
    """ADMM on `1/2 (w0 - w) H (w0 - w)'`, `w = d` with d sparse, its penalty rho rising geometrically.

    With `y = w + v / rho`, v the multiplier, the iteration of ALPS (Meng et al. 2024, eq. 5) is

        w = (H w0 + rho (2 d - y)) (H + rho I)^-1,   y <- w + y - d,   d <- largest entries of y

    Slow rises end in better masks: twice the steps are worth more than most searches from the mask of a
    quick course. So the rise is set by the time that is left, stage by stage. On a `Layer` whose scales are
    `leveled` the largest entries are those that cost most to prune, which is worth as much again.

    Args:
        layer: what to prune.
        seed: of the noise.
    """

    def __init__(self, layer: Layer, seed: int = 0) -> None:
        self.layer = layer
        self._b = layer.W @ layer.H
        self._unit = layer.mean_eigenvalue()
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
                given, never lengthens it. It is passed by as much as the last penalty's stage takes.
            stopped: polled; a true answer ends the course at once, and with a poor mask.

        Returns:
            The pruned entries `[m, n]`, and the steps taken.
        """
        return self._course(self.saliency(), self.layer.W.clone(), FIRST, stages, deadline, stopped)

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
        return self._course(state.pruned, y, WARM, stages, None, stopped)

    def refitted(self, pruned: Tensor, rows: Tensor | None = None) -> Refitted:
        """A mask `[m, n]` (or of some rows) with its survivors refitted: close enough to compare masks."""
        H, W = self.layer.H, self.layer.W if rows is None else self.layer.W[rows]
        weights = W * ~pruned
        weights, left = refit(H, ~pruned, weights, residual(H, W, weights), steps=REFIT, tolerance=1e-4)
        return Refitted(pruned, weights, left, row_costs(W, weights, left))

    def _course(
        self, pruned: Tensor, y: Tensor, first: float, stages: int, deadline: float | None, stopped: Stop
    ) -> tuple[Tensor, int]:
        layer, d = self.layer, y * ~pruned
        rho, steps = first * self._unit, 0
        growth = (LAST / first) ** (1.0 / max(1, stages - 1))
        while not stopped():
            began, before = time.perf_counter(), pruned
            solve = self._solver(rho)
            for _ in range(STEPS):
                w = solve(torch.sub(d, y, alpha=0.5).mul_(2.0 * rho).add_(self._b))
                y.sub_(d).add_(w)
                pruned = layer.pick(y * y)
                torch.mul(y, ~pruned, out=d)
            steps += STEPS
            late = deadline is not None and time.perf_counter() >= deadline
            if late and rho >= 0.99 * LAST * self._unit:
                break
            if rho >= self._unit:
                changed = int((pruned ^ before).sum())
                if rho >= LONGEST * self._unit or changed <= SETTLED * int((~pruned).sum()):
                    break
            factor = growth
            if deadline is not None:
                now = time.perf_counter()
                left = max(1.0, (deadline - now) / (now - began))
                factor = max(growth, math.exp(math.log(max(LAST * self._unit / rho, 1.0)) / left))
            rho *= factor
            y = d + (y - d) / factor
        return pruned, steps

    def _solver(self, rho: float) -> Callable[[Tensor], Tensor]:
        """Products of `[m, n]` with `(H + rho I)^-1`."""
        A = self.layer.H.clone()
        A.diagonal().add_(rho)
        L = torch.linalg.cholesky(A)
        if 2 * self.layer.m < self.layer.n:
            return lambda rows: torch.cholesky_solve(rows.T, L).T
        inverse = torch.cholesky_inverse(L)
        return lambda rows: rows @ inverse
