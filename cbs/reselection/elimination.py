"""The joint problem of a pool on the Gauss-Newton matrix of the network.

About the present network the divergence moves by `g d + 1/2 d' G d`; weights of the pool that are pruned go
to zero, and all others, with biases and normalisations, move to where the damped model is least. That is the
subset problem of one row, for any solver of `solvers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cbs.refit.normal_equations import FLOOR
from solvers import Budget, Solver, SubsetProblem, solve
from solvers.problem import Mask

DAMPING, LEAST, MOST = 0.1, 1e-4, 10.0
"""Lambda at first, and where it stays within."""
FACTOR = 3.0
"""Between one damping and the next."""
TRIES = 3
"""Most dampings that are tried in a round."""


@dataclass(frozen=True)
class Local:
    """A quadratic model about the present network in the entries of a pool.

    Attributes:
        w: `[p]` present values, zero where pruned.
        G: `[p, p]` Gauss-Newton matrix.
        g: `[p]` gradient.
        fixed: `[p]`, True where an entry may move but not go.
        groups: sizes of the budget's parts among the others, and how many go of each.
    """

    w: Tensor
    G: Tensor
    g: Tensor
    fixed: Tensor
    groups: tuple[tuple[int, ...], tuple[int, ...]]

    def problem(self, damping: float) -> SubsetProblem:
        """The subset problem with `damping` times the diagonal, which has a floor, added."""
        d = self.G.diagonal()
        H = self.G + torch.diag(damping * (d + FLOOR * d.mean()))
        sizes, prune = self.groups
        budget = Budget.per_layer(prune[0]) if len(sizes) == 1 else Budget.groups(sizes, prune)
        return SubsetProblem(
            self.w.cpu().numpy()[None], H.cpu().numpy(), budget, gradient=self.g.cpu().numpy()[None],
            movable=self.fixed.nonzero()[:, 0].tolist(),
        )  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """A mask and weights of the pool, and what the network itself says of them.

    Attributes:
        mask: `[p]`, True where pruned.
        weights: `[p]`.
        damping: of the model.
        divergence: true mean over the judging samples.
        foreseen: by the damped model: the change of the divergence.
        bound: on what any mask could reach by that model, minus infinity if not known.
        solver: that found the mask.
    """

    mask: Mask
    weights: Tensor
    damping: float
    divergence: float
    foreseen: float
    bound: float
    solver: str


def best_trial(
    local: Local,
    judge: Callable[[Tensor], float],
    damping: float,
    *,
    solver: str | Solver = "greedy",
    tries: int = TRIES,
    **limits: Any,
) -> Trial | None:
    """Solve the problem at several dampings, and keep what the network itself likes best.

    From `damping` it goes up, or down, as long as the divergence falls.

    Args:
        local: model and budget.
        judge: the true divergence of weights `[p]`.
        damping: to begin with.
        solver: of `solvers`.
        tries: most dampings.
        **limits: of every search, as `solvers.solve` takes them.

    Returns:
        The best, or None if no divergence is finite.
    """
    found: dict[int, Trial] = {}

    def at(step: int) -> float:
        damped = damping * FACTOR**step
        if step not in found and LEAST <= damped <= MOST and len(found) < tries:
            found[step] = _solved(local, judge, damped, solver, limits)
        return found[step].divergence if step in found else math.inf

    here, now = 0, at(0)
    way = 1 if at(1) <= now else -1
    while (then := at(here + way)) < now:
        here, now = here + way, then
    best = min(found.values(), key=lambda trial: trial.divergence)
    return best if math.isfinite(best.divergence) else None


def _solved(
    local: Local, judge: Callable[[Tensor], float], damping: float, solver: str | Solver, limits: Any
) -> Trial:
    problem = local.problem(damping)
    solution = solve(problem, solver, **limits)
    weights = torch.from_numpy(np.array(problem.weights(solution.mask)[0])).to(local.w.device)
    divergence = judge(weights)
    return Trial(
        solution.mask[0], weights, damping, divergence if math.isfinite(divergence) else math.inf,
        solution.value, solution.bound, solution.solver,
    )  # fmt: skip
