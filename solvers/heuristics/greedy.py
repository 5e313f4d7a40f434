"""Greedy pruning: the cheapest weight next, survivors moving after every one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from solvers.allocation import allocate
from solvers.control import Control
from solvers.curves import greedy_in_pools, row_curves
from solvers.heuristics.moves import make_tableau
from solvers.problem import Mask, SubsetProblem
from solvers.solver import Outcome, Solver


@dataclass(frozen=True)
class Greedy(Solver):
    """Row curves, and their exact allocation where rows share a pool (OBC, Frantar & Alistarh 2022)."""

    name: ClassVar[str] = "greedy"
    summary: ClassVar[str] = "cheapest weight first by row, rows allocated exactly"

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        mask = greedy_mask(problem, control.device)
        control.report(problem.value(mask), -np.inf, mask=mask)
        return Outcome(mask)


@dataclass(frozen=True)
class OptimalBrainSurgeon(Solver):
    """One weight at a time over the whole pool, by `w_q^2 / (2 [H^-1]_qq)` (Hassibi & Stork 1992)."""

    name: ClassVar[str] = "obs"
    summary: ClassVar[str] = "Optimal Brain Surgeon: one weight at a time over the whole budget"
    variants: ClassVar[tuple[str, ...]] = ("joint",)

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        if problem.budget.kind == "per_layer":
            curves = row_curves(problem.W, problem.hessian)
            rises = np.diff(curves.values, axis=1)
            mask = curves.masks(_next_cheapest(rises, int(problem.pools.prune[0])))
        else:
            mask = greedy_mask(problem, control.device)
        control.report(problem.value(mask), -np.inf, mask=mask)
        return Outcome(mask)


def greedy_mask(problem: SubsetProblem, device: str = "cpu") -> Mask:
    """The mask of the greedy rule, for any budget of a reduced problem."""
    kind = problem.budget.kind
    if kind == "n_of_m" and problem.refit:
        return greedy_in_pools(problem.W, problem.hessian, problem.pools.labels, problem.pools.prune)
    if kind == "n_of_m" or problem.pools.coupled or (problem.G is not None and not problem.refit):
        return _on_tableau(problem, device)
    curves = row_curves(problem.W, problem.hessian, refit=problem.refit)
    if kind == "per_row":
        return curves.masks(problem.pools.prune)
    return curves.masks(allocate(list(curves.values), int(problem.pools.prune[0])))


def _next_cheapest(rises: np.ndarray, total: int) -> np.ndarray:
    """Counts after taking, `total` times, the row whose next step rises least."""
    heads = np.maximum.accumulate(rises, axis=1)
    rows = np.repeat(np.arange(len(rises)), rises.shape[1])
    return np.bincount(rows[np.argsort(heads.ravel(), kind="stable")[:total]], minlength=len(rises))


def _on_tableau(problem: SubsetProblem, device: str) -> Mask:
    """One pivot a step: budgets whose pools cut through rows, coupled rows, linear terms."""
    tableau = make_tableau(problem, device=device)
    pools = problem.pools
    labels = torch.as_tensor(pools.labels, device=device)
    left = torch.as_tensor(pools.prune.copy(), device=device)
    rows = torch.arange(problem.m, device=device)
    while bool((left > 0).any()):
        costs = tableau.prune_costs()
        if pools.coupled:
            j = costs.sum(0).argmin()
            tableau.flip(rows, j.expand(problem.m))
            left -= 1
            continue
        costs = costs.masked_fill((left <= 0)[labels], torch.inf)
        if problem.budget.kind == "per_layer":
            where = int(costs.argmin())
            active = torch.tensor([where // problem.n], device=device)
            index = torch.tensor([where % problem.n], device=device)
        else:
            active = torch.nonzero(torch.isfinite(costs).any(1))[:, 0]
            index = costs[active].argmin(1)
        tableau.flip(active, index)
        left.index_add_(0, labels[active, index], torch.full_like(active, -1))
    return np.array(tableau.pruned.cpu().numpy())
