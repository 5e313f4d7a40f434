"""The perspective relaxation over units of neighbouring columns: a certified bound, and its rounded mask.

With one indicator z for all columns of a unit, and `H = R + diag(d)`, the relaxation is

    min over v, z   1/2 tr(v'Rv) - tr(v'HW') + sum_u s_u(v) / (2 z_u),   s_u(v) = sum of d_i v_ir^2 in unit u

with `0 <= z <= 1` and `sum z = keep`. It is convex in v and z together, and each of them is in closed form
for the other, so that alternating converges. Whatever v is reached, `LB(v)` of `solvers.bounds.evaluate`
with the scores of a unit's columns added up is a valid bound.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from solvers.bounds.evaluate import block_terms, margin, relaxed_point
from solvers.bounds.split import split_blocks
from solvers.form.blocks import blocks
from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem

STEPS = 60
"""Times that v and z are found from each other, at most."""
ENOUGH = 1e-4
"""They end when the bound has risen by less than this in five steps, relative to it."""


def units_bound(problem: SubsetProblem, stopped: Callable[[], object]) -> tuple[float, Mask]:
    """A lower bound, and the mask `[m, n]` of the units that the relaxation keeps least of.

    Args:
        problem: reduced, joint, of one curvature and a budget in units.
        stopped: polled between steps; a true answer ends them, with what is valid so far.
    """
    (block,) = blocks(problem)
    width, m = problem.pools.width, problem.m
    keep = int(block.keep[0]) // width
    (split,) = split_blocks([block], stopped=stopped)
    z = np.clip(split.z.reshape(-1, width).mean(axis=1), 1e-9, 1.0)
    bound, before = 0.0, -np.inf
    best = z
    for step in range(STEPS):
        v = relaxed_point(block, split.d, np.repeat(z, width))
        base, score = block_terms(block, split.d, v)
        total = np.sort(score.reshape(-1, width).sum(axis=1))[::-1][:keep]
        size = float(np.abs(score).sum()) + abs(block.constant)
        reached = base - float(total.sum()) - margin(block.n) * size
        if reached > bound:
            bound, best = reached, z
        if stopped() or (step % 5 == 4 and bound - before <= ENOUGH * abs(bound)):
            break
        before = bound if step % 5 == 4 else before
        pull = np.sqrt((split.d[0][:, None] * v[0] ** 2).sum(axis=1).reshape(-1, width).sum(axis=1))
        z = np.clip(_filled(pull, keep), 1e-9, 1.0)
    pruned = problem.pools.smallest(np.repeat(best, width)[None])
    return max(bound, block.floor), problem.pools.expand(pruned, m)


def _filled(pull: Array, keep: int) -> Array:
    """`argmin sum pull_u^2 / z_u` with `0 <= z <= 1`, `sum z = keep`: `min(1, pull / t)`."""
    order = np.sort(pull)[::-1]
    rest = np.append(np.cumsum(order[::-1])[::-1], 0.0)
    for ones in range(keep):
        level = rest[ones] / (keep - ones)
        if order[ones] <= level or level == 0.0:
            break
    else:
        return np.asarray(pull >= order[keep - 1], dtype=float) if keep else np.zeros(len(pull))
    return np.minimum(1.0, pull / level) if level > 0 else np.full(len(pull), keep / len(pull))
