"""Alternating directions whose penalty anneals, at scales where entries compare, in the time there is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

from solvers.heuristics.layer import Layer, Tensor

STEPS = 3
"""Steps between two penalties."""
FIRST, LAST, LONGEST = 0.3, 3.0, 30.0
"""The penalty in multiples of the median eigenvalue: where it starts, where the given time or number of
stages takes it, and where it ends at the latest."""
SETTLED = 3e-4
"""Part of the kept entries that may still change from one penalty to the next at the end."""


def anneal(
    layer: Layer,
    *,
    stages: int = 30,
    deadline: float | None = None,
    stopped: Callable[[], object] = lambda: None,
    start: Tensor | None = None,
) -> tuple[Tensor, int]:
    """Masks by ADMM on `1/2 (w0 - w) H (w0 - w)'`, `w = d` with d sparse, its penalty rising geometrically.

    With `y = w + v / rho`, v the multiplier, the iteration of ALPS (Meng et al. 2024, eq. 5) is

        w = (H w0 + rho (2 d - y)) (H + rho I)^-1,   y <- w + y - d,   d <- largest entries of y

    Slow rises end in better masks: twice the steps are worth more than any search from the mask of a quick
    one. So the rise is set by the time that is left, stage by stage. `Layer(leveled=True)` makes the
    largest entries those that cost most to prune, which is worth as much again.

    Args:
        layer: what to prune.
        stages: penalties from first to last, of `STEPS` steps each.
        deadline: `time.perf_counter()` by which the last penalty should be reached; shortens the course
            to fewer stages than given, never lengthens it.
        stopped: polled; a true answer ends the course.
        start: `[m, n]` bool, pruned entries to start from; by default those of least saliency.

    Returns:
        The pruned entries `[m, n]`, and the steps taken.
    """
    eigenvalues, Q = torch.linalg.eigh(layer.H)
    middle = float(eigenvalues.median())
    narrow = 3 * layer.m < layer.n
    b = layer.W @ layer.H
    if narrow:
        b = b @ Q
    pruned = layer.pick(layer.W**2 / ((Q * Q) @ (1.0 / eigenvalues))) if start is None else start
    y = layer.W.clone()
    d = y * ~pruned
    rho, last, steps = FIRST * middle, LAST * middle, 0
    growth = (last / rho) ** (1.0 / max(1, stages - 1))
    while not stopped():
        began, before = time.perf_counter(), pruned
        inverse = None if narrow else (Q / (eigenvalues + rho)) @ Q.T
        for _ in range(STEPS):
            pull = torch.sub(d, y, alpha=0.5).mul_(2.0 * rho)
            if inverse is None:
                w = (pull @ Q).add_(b).div_(eigenvalues + rho) @ Q.T
            else:
                w = pull.add_(b) @ inverse
            y.sub_(d).add_(w)
            pruned = layer.pick(y * y)
            torch.mul(y, ~pruned, out=d)
        steps += STEPS
        if rho >= middle:
            changed = int((pruned ^ before).sum())
            if rho >= LONGEST * middle or changed <= SETTLED * int((~pruned).sum()):
                break
        factor = growth
        if deadline is not None and rho < last:
            now = time.perf_counter()
            left = max(1.0, (deadline - now) / (now - began))
            factor = max(growth, math.exp(math.log(last / rho) / left))
        rho *= factor
        y = d + (y - d) / factor
    return pruned, steps
