"""SparseGPT: one pass over the columns, each pruned entry made up for by the columns to its right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.control import Control
from solvers.heuristics.layer.scaled import Layer, cholesky, suits
from solvers.problem import SubsetProblem
from solvers.runtime.tensors import Tensor, torch
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

    def makes_tensors(self, problem: SubsetProblem, device: str) -> bool:
        """See `Solver.makes_tensors`."""
        return True

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
