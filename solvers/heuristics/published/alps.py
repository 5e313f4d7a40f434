"""ALPS: alternating directions on a layer, a penalty that grows as the support settles, then a refit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.budget import KINDS
from solvers.control import Control
from solvers.heuristics.layer.scaled import Layer, refit, residual, row_costs, suits
from solvers.problem import SubsetProblem
from solvers.runtime.tensors import Tensor, torch
from solvers.solution import Status
from solvers.solver import Outcome, Solver


@dataclass(frozen=True)
class ALPS(Solver):
    """Meng et al. 2024: ADMM on `1/2 (w0 - w) H (w0 - w)'` with `w = d`, d sparse, at a unit diagonal of H.

        w <- (H + rho I)^-1 (H w0 - v + rho d),   d <- largest entries of w + v / rho,   v <- v + rho (w - d)

    Every third step the penalty rho grows by 1.3, 1.2 or 1.1 as more than 10%, 0.5% or none of the kept
    entries changed; it ends when none did, or from step 30 on when fewer than 0.03% did. Then ten steps of
    preconditioned conjugate gradients on the support.

    Attributes:
        rho: first penalty.
        steps: most steps.
    """

    rho: float = 0.1
    steps: int = 300

    name: ClassVar[str] = "alps"
    budgets: ClassVar[tuple[str, ...]] = KINDS
    summary: ClassVar[str] = (
        "ADMM with a growing penalty, conjugate gradients on the support (Meng et al. 2024)"
    )
    variants: ClassVar[tuple[str, ...]] = ("joint",)

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        return suits(problem)

    def makes_tensors(self, problem: SubsetProblem, device: str) -> bool:
        """See `Solver.makes_tensors`."""
        return True

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`; `stats["without_refit"]` is the cost after the ten steps on the support."""
        layer = Layer(problem, control.device)
        pruned, weights, steps = self._alternate(layer, control)
        weights, left = refit(layer.H, ~pruned, weights, residual(layer.H, layer.W, weights), steps=10)
        passed = float(row_costs(layer.W, weights, left).double().sum())
        mask = layer.mask(pruned)
        control.report(problem.value(mask), -np.inf, mask=mask)
        stats = {"steps": steps, "without_refit": passed}
        return Outcome(mask, reason=control.stopped() or Status.FEASIBLE, stats=stats)

    def _alternate(self, layer: Layer, control: Control) -> tuple[Tensor, Tensor, int]:
        eigenvalues, Q = torch.linalg.eigh(layer.H)
        rho, b = self.rho, layer.W @ layer.H
        pruned = layer.pick(layer.W**2)
        d, v = layer.W * ~pruned, torch.zeros_like(layer.W)
        inverse = (Q / (eigenvalues + rho)) @ Q.T
        w, step = layer.W, 0
        while step < self.steps and not control.stopped():
            before = pruned
            for _ in range(3):
                w = (b - v + rho * d) @ inverse
                moved = w + v / rho
                pruned = layer.pick(moved**2)
                d = moved * ~pruned
                v = rho * (moved - d)
            step += 3
            changed = float((pruned ^ before).sum()) / max(1, int((~pruned).sum()))
            if changed == 0 or (step >= 30 and changed < 3e-4):
                break
            rho *= 1.3 if changed > 0.1 else 1.2 if changed > 0.005 else 1.1
            inverse = (Q / (eigenvalues + rho)) @ Q.T
        pruned = layer.pick(w**2)
        return pruned, w * ~pruned, step
