"""Published methods for a whole layer at a unit diagonal: SparseGPT's pass over the columns, and ALPS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.control import Control
from solvers.heuristics.layer.scaled import Layer, cholesky, refit, residual, row_costs, suits
from solvers.problem import SubsetProblem
from solvers.runtime.tensors import Tensor, torch
from solvers.solution import Status
from solvers.solver import Outcome, Solver


@dataclass(frozen=True)
class SparseGPT(Solver):
    """Frantar & Alistarh 2023: masks block by block of columns, by `w_j^2 / (2 U_jj^2)` with `H^-1 = U'U`.

    The mask of a block is chosen when the pass reaches it, from the weights as moved so far: over the block
    of all rows where the budget is the layer's (as published), over the row's part of it where every row has
    its own, and over the next M columns for N of M. Updates to the columns right of a block wait for its end.

    Attributes:
        block: columns of a block.
    """

    block: int = 128

    name: ClassVar[str] = "sparsegpt"
    summary: ClassVar[str] = "one pass over the columns with lazy updates (Frantar & Alistarh 2023)"
    variants: ClassVar[tuple[str, ...]] = ("joint",)
    budgets: ClassVar[tuple[str, ...]] = ("per_row", "per_layer", "n_of_m")

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        return suits(problem)

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`; `stats["without_refit"]` is the cost of the pass's own weights."""
        layer = Layer(problem, control.device)
        pruned, weights = self.sweep(layer)
        moved = (layer.W - weights).double()
        passed = 0.5 * float(((moved @ layer.H.double()) * moved).sum())
        mask = layer.mask(pruned)
        control.report(problem.value(mask), -np.inf, mask=mask)
        return Outcome(mask, stats={"without_refit": passed})

    def sweep(self, layer: Layer) -> tuple[Tensor, Tensor]:
        """The pruned entries `[m, n]` of one pass, and the weights that it leaves (scaled as the layer's)."""
        U = cholesky(layer.inverse()).T.contiguous()
        W, n = layer.W.clone(), layer.n
        pruned = torch.zeros_like(W, dtype=torch.bool)
        group = layer.of or 1
        width = max(group, self.block // group * group)
        for start in range(0, n, width):
            stop = min(start + width, n)
            part, errors = W[:, start:stop], torch.zeros_like(W[:, start:stop])
            corner = U[start:stop, start:stop]
            roots = corner.diagonal()
            chosen = pruned[:, start:stop]
            if layer.kind != "n_of_m":
                chosen[:] = _share(layer, (part / roots) ** 2, start, stop)
            for j in range(stop - start):
                if layer.kind == "n_of_m" and j % group == 0:
                    ahead = slice(j, j + group)
                    scores = (part[:, ahead] / roots[ahead]) ** 2
                    index = scores.topk(int(layer.pools.prune[0]), dim=1, largest=False).indices
                    chosen[:, ahead] = chosen[:, ahead].scatter(1, index, True)
                errors[:, j] = part[:, j] * chosen[:, j] / roots[j]
                part[:, j:] -= errors[:, j, None] * corner[j, j:]
            part.masked_fill_(chosen, 0.0)
            W[:, stop:] -= errors @ U[start:stop, stop:]
        return pruned, W


def _share(layer: Layer, scores: Tensor, start: int, stop: int) -> Tensor:
    """The least of a block's scores, as many as the block's share of each budget; shares add up exactly."""
    prune = torch.as_tensor(layer.pools.prune, device=scores.device)
    count = prune * stop // layer.n - prune * start // layer.n
    flat = scores.reshape(len(prune), -1)
    places = torch.arange(flat.shape[1], device=scores.device) < count[:, None]
    chosen = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, flat.argsort(dim=1, stable=True), places)
    return chosen.view_as(scores)


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
    summary: ClassVar[str] = (
        "ADMM with a growing penalty, conjugate gradients on the support (Meng et al. 2024)"
    )
    variants: ClassVar[tuple[str, ...]] = ("joint",)

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        return suits(problem)

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
