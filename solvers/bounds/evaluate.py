"""The bound of a split at any point u, with a margin for rounding: one formula for both variants."""

from __future__ import annotations

import numpy as np

from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.problem import Mask


def relaxed_point(block: Block, d: Array, z: Array) -> Array:
    """The u at which the bound is tight for indicators z: `[g, n, c]`.

    Joint: `v = (R + diag(d / z))^-1 b`, computed as `z^1/2 (z^1/2 R z^1/2 + diag(d))^-1 z^1/2 b`, so
    that z may be zero. Selection: `x = 1 - z`.
    """
    if not block.refit:
        return (1.0 - z)[None, :, None].copy()
    root = np.sqrt(np.clip(z, 0.0, 1.0))
    u = np.empty_like(block.B)
    for g, (H, B) in enumerate(zip(block.H, block.B, strict=True)):
        M = root[:, None] * (H - np.diag(d[g])) * root[None, :] + np.diag(d[g])
        u[g] = root[:, None] * np.linalg.solve(M, root[:, None] * B)
    return u


def lower_bound(
    block: Block, d: Array, u: Array, *, kept: Mask | None = None, pruned: Mask | None = None
) -> float:
    """A valid lower bound on a block's cost over all decisions that respect the fixings.

    Joint, with `q = b - R u`:

        LB(u) = 1/2 w'Hw - 1/2 u'Ru - sum_{fixed kept} s - sum_pool (largest free s),  s_i = q_i^2/(2 d_i)

    Selection, with `t = R u + d/2 - c`:

        LB(u) = -1/2 u'Ru + sum_{fixed pruned} t + sum_pool (smallest free t)

    Sums over curvatures and right-hand sides are taken before sorting. The bound holds for every u;
    it is lowered by an a priori estimate of the rounding in its own evaluation, though not below the
    block's `floor`.

    Args:
        block: the block.
        d: `[g, n]` split, as `secure` leaves it.
        u: `[g, n, c]` any point; see `relaxed_point`.
        kept: `[n]` decisions fixed to stay.
        pruned: `[n]` decisions fixed to go.
    """
    n = block.n
    gamma = 2.0 * (n + 8) * np.finfo(float).eps
    free = np.ones(n, dtype=bool)
    for fixed in (kept, pruned):
        if fixed is not None:
            free &= ~fixed
    quadratic = quadratic_size = 0.0
    score, slack = np.zeros(n), np.zeros(n)
    for g in range(len(block.H)):
        R = block.H[g] - np.diag(d[g])
        Ru, size = R @ u[g], np.abs(R) @ np.abs(u[g])
        quadratic += 0.5 * float((u[g] * Ru).sum())
        quadratic_size += 0.5 * float((np.abs(u[g]) * size).sum())
        if block.refit:
            q = block.B[g] - Ru
            error = gamma * (np.abs(block.H[g]) @ np.abs(block.W[g]) + size)
            score += (q * q).sum(axis=1) / (2.0 * d[g])
            slack += ((2.0 * np.abs(q) + error) * error).sum(axis=1) / (2.0 * d[g])
        else:
            score += Ru[:, 0] + 0.5 * d[g] - block.B[g, :, 0]
            slack += gamma * (size[:, 0] + np.abs(d[g]) + np.abs(block.B[g, :, 0]) + np.abs(R).sum(axis=1))
    take, fixed_in = (block.keep, kept) if block.refit else (block.prune, pruned)
    sign = 1.0 if block.refit else -1.0
    optimistic = score + sign * slack
    total = size_total = 0.0
    for p, count in enumerate(take):
        pool = block.labels == p
        left = int(count)
        if fixed_in is not None:
            inside = pool & fixed_in
            total += float(optimistic[inside].sum())
            size_total += float(np.abs(optimistic[inside]).sum())
            left -= int(inside.sum())
        ranked = np.sort(optimistic[pool & free])
        if left < 0 or left > len(ranked):
            return np.inf
        best = ranked[len(ranked) - left :] if block.refit else ranked[:left]
        total += float(best.sum())
        size_total += float(np.abs(best).sum())
    constant = block.constant
    rounding = gamma * (quadratic_size + size_total)
    if block.refit:
        rounding += (
            gamma
            * 0.5
            * float(
                sum(
                    (np.abs(W) * (np.abs(H) @ np.abs(W))).sum() for H, W in zip(block.H, block.W, strict=True)
                )
            )
        )
        return max(block.floor, constant - quadratic - total - rounding)
    return max(block.floor, total - quadratic - rounding)
