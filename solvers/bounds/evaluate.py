"""The bound of a split at any point u, with a margin for rounding: one formula for every kind of row.

With `H = R + diag(d)`, R positive semidefinite, and any u,

    joint      LB(u) = 1/2 w'Hw - 1/2 u'Ru - sum of the largest scores,  score_i = (H w - R u)_i^2 / (2 d_i)
    selection  LB(u) = -1/2 u'Ru - sum of the largest scores,  score_i = -(w_i (R u)_i + 1/2 d_i w_i^2 - c_i)

as many of each pool as it keeps (joint) or prunes (selection). The first is the dual of the perspective
relaxation (Frangioni & Gentile 2006), the second that of the convexified quadratic programme.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.tensors import Tensor

Numbers = TypeVar("Numbers", Array, Tensor)
ROUNDING = 1e-12
"""Share of a problem's scale that rounding may have moved a cost by; see also `solvers.hessian`."""


def margin(n: int) -> float:
    """Relative rounding of sums of n products of such sums."""
    return 2.0 * (n + 8) * float(np.finfo(float).eps)


def terms(refit: bool, H: Numbers, d: Numbers, W: Numbers, B: Numbers, u: Numbers) -> tuple[Numbers, Numbers]:
    """What rows contribute to bounds, rounding included: `base [m]` from below, scores `[m, n]` from above.

    The bound is `base` less the largest scores, and joint `1/2 w'Hw` more, whose rounding base has too.

    Args:
        refit: joint, or selection.
        H: `[n, n]`.
        d: `[n]`, or `[m, n]`; positive when joint.
        W: `[m, n]` weights.
        B: `[m, n]` `W H` as computed (joint), or c (selection).
        u: `[m, n]`.
    """
    gamma, size_H = margin(len(H)), abs(H)
    Ru, size = u @ H - d * u, abs(u) @ size_H + abs(d) * abs(u)
    base = -0.5 * (u * Ru).sum(-1) - 0.5 * gamma * (abs(u) * size).sum(-1)
    if refit:
        own = abs(W) @ size_H
        q = abs(B - Ru) + gamma * (size + own)
        return base - 0.5 * gamma * (abs(W) * own).sum(-1), (1.0 + gamma) * q * q / (2.0 * d)
    own = 0.5 * d * W * W
    return base, gamma * (abs(W) * size + abs(own) + abs(B)) - (W * Ru + own - B)


def block_terms(block: Block, d: Array, u: Array) -> tuple[float, Array]:
    """`base` and scores `[n]` of a block, summed over its curvatures and right-hand sides.

    These are as many as a layer has rows where rows share a mask; the rounding of their sum is taken off too.
    """
    base, score = block.constant, np.zeros(block.n)
    summed = margin(block.B.shape[0] * block.B.shape[2])
    for H, B, W, own, point in zip(block.H, block.B, block.W, d, u, strict=True):
        weights = W.T if block.refit else np.ones((1, block.n))
        low, high = terms(block.refit, H, own, weights, B.T, point.T)
        if not block.refit:
            high += margin(block.n) * (np.abs(H).sum(axis=1) + np.abs(own))  # H is a product of three
        base += float(low.sum() - summed * np.abs(low).sum())
        score += high.sum(axis=0) + summed * np.abs(high).sum(axis=0)
    return base, score


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

    It holds for every u; it is lowered by an a priori estimate of the rounding in its own evaluation,
    though not below the block's `floor`.

    Args:
        block: the block.
        d: `[g, n]` split, as `secure` leaves it.
        u: `[g, n, c]` any point; see `relaxed_point`.
        kept: `[n]` decisions fixed to stay.
        pruned: `[n]` decisions fixed to go.
    """
    base, score = block_terms(block, d, u)
    none = np.zeros(block.n, dtype=bool)
    kept, pruned = none if kept is None else kept, none if pruned is None else pruned
    take, inside = (block.keep, kept) if block.refit else (block.prune, pruned)
    total = size = 0.0
    for p, count in enumerate(take.tolist()):
        pool = block.labels == p
        ranked = np.sort(score[pool & ~kept & ~pruned])[::-1]
        left = count - np.count_nonzero(pool & inside)
        if not 0 <= left <= len(ranked):
            return np.inf
        taken = np.append(score[pool & inside], ranked[:left])
        total += float(taken.sum())
        size += float(np.abs(taken).sum())
    return max(block.floor, base - total - margin(block.n) * (size + abs(block.constant)))


def bound_curve(block: Block, d: Array, u: Array) -> Array:
    """`[n + 1]` the bounds of a block of one pool for every pruned count, all at one point."""
    base, score = block_terms(block, d, u)
    ranked = np.sort(score)[::-1]
    lost = np.append(0.0, np.cumsum(ranked) + margin(block.n) * np.cumsum(np.abs(ranked)))
    low = np.maximum(block.floor, base - margin(block.n) * abs(block.constant) - lost)
    return np.asarray(low[::-1] if block.refit else low)


def trivial_bound(problem: SubsetProblem) -> float:
    """What no mask costs less than, from signs alone; exact where only one mask meets the budget.

    A joint cost is at least 0. A selection cost is at least minus the `k` largest `g_i w_i`, less what
    a Hessian that is semidefinite up to rounding may hide.
    """
    pools = problem.pools
    if ((pools.prune == 0) | (pools.keep == 0)).all():
        value = problem.value(pools.expand(pools.smallest(np.zeros(pools.labels.shape)), problem.m))
        return value - ROUNDING * problem.scale if pools.prune.any() else 0.0
    return sign_bound(problem)


def sign_bound(problem: SubsetProblem) -> float:
    """`trivial_bound` without the cost of a mask: what a search that had no time falls back on."""
    if problem.refit:
        return 0.0
    size = 0.5 * float((problem.hessian.diagonal().max() * problem.W**2).sum())
    if problem.G is None:
        return float(-ROUNDING * problem.n * size)
    pools = problem.pools
    scores = -problem.G * problem.W
    if pools.coupled:
        scores = scores.sum(axis=0, keepdims=True)
    least = float(scores[pools.smallest(scores)].sum())
    return float(least - ROUNDING * (problem.n * size + np.abs(problem.G * problem.W).sum()))
