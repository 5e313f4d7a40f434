"""Best moves of a tableau within a budget's pools: what greedy, OBS and local search are made of."""

from __future__ import annotations

import numpy as np

from solvers.greedy.elimination import invert
from solvers.heuristics.tensor.tableau import JointTableau, SelectionTableau, Tableau
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.tensors import Tensor, torch


def make_tableau(
    problem: SubsetProblem, mask: Mask | None = None, *, rows: slice = slice(None), device: str = "cpu"
) -> Tableau:
    """The tableau of some rows of a reduced problem.

    Args:
        problem: without movable columns, and without gradient when joint.
        mask: `[m, n]` pruned entries to start from, or None for none.
        rows: which rows.
        device: torch device.
    """
    W = problem.W[rows]
    index = range(problem.m)[rows]

    def tensor(A: object) -> Tensor:
        return torch.as_tensor(np.array(A), device=device)

    pruned = None if mask is None else tensor(mask[rows])
    shared = problem.hessian.shared
    if problem.refit:
        C = (
            invert(problem.hessian.dense(0))
            if shared
            else np.stack([invert(problem.hessian.dense(r)) for r in index])
        )
        return JointTableau(tensor(C), tensor(W), pruned)
    H = problem.hessian.dense(0)[None] if shared else np.stack([problem.hessian.dense(r) for r in index])
    c = np.zeros_like(W) if problem.G is None else problem.G[rows] * W
    return SelectionTableau(tensor(W[:, :, None] * H * W[:, None, :]), tensor(c), pruned)


def best_swaps(tableau: Tableau, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each row's best swap within a pool: `(change [B], restored [B], pruned [B])`.

    Args:
        tableau: the state.
        labels: `[B, n]` pools.
    """
    change = tableau.swap_costs()
    allowed = tableau.pruned[:, :, None] & ~tableau.pruned[:, None, :]
    if bool((labels != labels[:, :1]).any()):
        allowed &= labels[:, :, None] == labels[:, None, :]
    change = change.masked_fill_(~allowed, torch.inf).flatten(1)
    best, where = change.min(1)
    n = labels.shape[1]
    return best, where // n, where % n


def best_coupled_swap(tableau: Tableau) -> tuple[float, int, int]:
    """The best swap of whole columns, all rows together: `(change, restored, pruned)`."""
    change = tableau.swap_costs().sum(0)
    allowed = tableau.pruned[0, :, None] & ~tableau.pruned[0, None, :]
    change = change.masked_fill(~allowed, torch.inf)
    where = int(change.argmin())
    n = change.shape[1]
    return float(change.view(-1)[where]), where // n, where % n


def best_transfer(tableau: Tableau) -> tuple[float, tuple[int, int], tuple[int, int]]:
    """The best exchange between two different rows of one pool: `(change, restored, pruned)`."""
    come, i = tableau.restore_costs().min(1)
    go, j = tableau.prune_costs().min(1)
    change = come[:, None] + go[None, :]
    change.fill_diagonal_(torch.inf)
    where = int(change.argmin())
    batch = len(come)
    a, b = where // batch, where % batch
    return float(change.view(-1)[where]), (a, int(i[a])), (b, int(j[b]))
