"""Refitting the survivors of many rows at once, by conjugate gradients with a mask for every row."""

from __future__ import annotations

from solvers.runtime.tensors import Tensor, torch


def residual(H: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """`[m, n]` what is left to explain, `(w0 - w) H`; zero on the survivors of a refitted row.

    Args:
        H: `[n, n]`.
        target: `w0 [m, n]`.
        weights: `w [m, n]`.
    """
    return (target - weights) @ H


def row_costs(target: Tensor, weights: Tensor, left: Tensor) -> Tensor:
    """`[m]` costs `1/2 (w0 - w) H (w0 - w)'` of rows whose `residual` is `left`."""
    return 0.5 * ((target - weights) * left).sum(1)


def refit(
    H: Tensor, kept: Tensor, weights: Tensor, left: Tensor, *, steps: int, tolerance: float = 1e-4
) -> tuple[Tensor, Tensor]:
    """Move every row's survivors towards `min 1/2 (w0 - w) H (w0 - w)'`, all rows in one product a step.

    Conjugate gradients on `H_SS w_S = (H w0)_S`, S the survivors of the row (ALPS, Meng et al. 2024, section
    3.2). On a curvature of unit diagonal this is the method with Jacobi's preconditioner. The full residual
    follows from the same products, so that the pull on the pruned entries comes for nothing.

    Args:
        H: `[n, n]`, positive definite.
        kept: `[m, n]` bool.
        weights: `w [m, n]` to start from, zero where pruned.
        left: `residual` of `weights`.
        steps: most steps.
        tolerance: of the residual on the survivors, relative to the first one of the whole row.

    Returns:
        Weights and their `residual`.
    """
    on = kept.to(weights.dtype)
    gap = left * on
    direction = gap
    size = (gap * gap).sum(1, keepdim=True)
    goal = tolerance**2 * (left * left).sum(1, keepdim=True)
    for _ in range(steps):
        if bool((size <= goal).all()):
            break
        image = direction @ H
        along = (direction * image).sum(1, keepdim=True)
        step = torch.where(size > 0, size / along.clamp_min(torch.finfo(along.dtype).tiny), 0.0)
        weights = torch.addcmul(weights, step, direction)
        left = torch.addcmul(left, step, image, value=-1.0)
        gap = left * on
        before, size = size, (gap * gap).sum(1, keepdim=True)
        direction = torch.addcmul(gap, size / before.clamp_min(torch.finfo(before.dtype).tiny), direction)
    return weights, left
