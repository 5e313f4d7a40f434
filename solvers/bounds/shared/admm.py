"""The best points u of a split for many rows at once: one product of matrices a step.

The relaxation of a row at a split `H = R + diag(d)` is `min_v 1/2 v'Rv - b'v + h(v)`, with `v` the relaxed
weights (joint) or `v = w o x` with relaxed indicators x (selection), and `h` what is left of a row's cost:

    joint      b = H w,  h(v) = min_z 1/2 sum d_i v_i^2 / z_i          over 0 <= z <= 1, sum_pool z = keep
    selection  b = 0,    h(v) = sum (1/2 d_i w_i^2 - c_i) x_i          over 0 <= x <= 1, sum_pool x = prune

Alternating direction steps (Boyd et al. 2011) take the two parts in turn. In the metric `diag(d)` the
quadratic part needs `(R + diag(d))^-1 = H^-1`, which is the same for every split and row:

    v = H^-1 (b + d o (y - l)),    y = prox_h(v + l),    l = l + v - y

and `R v = b + d o (y - l - v)` comes for free. Every v gives a valid bound
(`solvers.bounds.shared.layer_bound`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from solvers.bounds.shared.rows import SharedRows
from solvers.bounds.waterfill import fill
from solvers.runtime.tensors import Tensor, torch

RELAX = 1.7
"""Over-relaxation of the quadratic part's point."""
NEGLIGIBLE = 1e-12
"""Squared weights below this share of the largest count for so much in a selection's metric."""
LEAST = 1e-30
"""Root of a price, in the search's units, below which single precision does not go."""


@dataclass(frozen=True)
class Ascent:
    """Where the relaxations of some rows stand.

    Attributes:
        v: `[m, n]` points, at which bounds are evaluated.
        q: `[m, n]` `b - R v` (joint) or `R v` (selection).
        z: `[m, n]` relaxed indicators: kept (joint), or pruned (selection).
        y: `[m, n]` the separable part's points.
        price: `[m, n]` the scaled multipliers l.
        level: `[P, 1]` of every pool.
    """

    v: Tensor
    q: Tensor
    z: Tensor
    y: Tensor
    price: Tensor
    level: Tensor | None


def start(rows: SharedRows) -> Ascent:
    """No steps taken yet."""
    zero = torch.zeros_like(rows.W)
    return Ascent(zero, zero, zero, zero, zero, None)


def ascend(
    rows: SharedRows, d: Tensor, inverse: Tensor, at: Ascent, steps: int, shift: float = 0.0
) -> Ascent:
    """Go on with the alternating direction steps of all rows.

    Args:
        rows: the rows; tensors of the precision to search in.
        d: `[n]`, or `[m, n]` splits of the rows' own: `H + shift I - diag(d)` is positive semidefinite and
            `d > 0`.
        inverse: `(H + shift I)^-1`.
        at: where to start, `start` or an earlier result; d may have changed since.
        steps: how many to take, at least one.
        shift: splits of selection problems may be as low as `-shift`: the split is `d - shift`.
    """
    count = torch.as_tensor(rows.taken, dtype=rows.W.dtype, device=rows.W.device)[:, None]
    y, price, level = at.y, at.price, at.level
    if not rows.refit:
        square = rows.W * rows.W
        square = square.clamp_min(NEGLIGIBLE * float(square.max().clamp_min(torch.finfo(square.dtype).tiny)))
        slope = 1.0 / (d * square)
        offset = -0.5 * (d - shift) / d if rows.C is None else rows.C * slope - 0.5 * (d - shift) / d
    for _ in range(steps):
        pull = d * (y - price)
        v = pull @ inverse
        if rows.refit:
            v += rows.W
        step = RELAX * v + (1.0 - RELAX) * y + price
        if rows.refit:
            size = rows.pooled(torch.sqrt(d) * step.abs())
            if rows.price is None:
                z, level = fill(torch.full_like(size, -1.0), size, count, level)
            else:
                z = (size / max(math.sqrt(2.0 * rows.price), LEAST) - 1.0).clamp(0.0, 1.0)
            z = z.reshape(v.shape)
            y_next = step * (z / (1.0 + z))
        else:
            z, level = fill(rows.pooled(step * rows.W / square + offset), rows.pooled(slope), count, level)
            z = z.reshape(v.shape)
            y_next = z * rows.W
        price = step - y_next
        y = y_next
    q = d * v - pull if rows.refit else pull - d * v
    return Ascent(v, q, z, y, price, level)


def slope(rows: SharedRows, d: Tensor, at: Ascent) -> Tensor:
    """`[n]` how fast the sum of the rows' bounds rises with a shared split, at least about zero.

    Joint, by entry: `1/2 v^2 - z q v / d + z q^2 / (2 d^2)`, which is `1/2 v^2 (1/z - 1)` at the optimum.
    Selection: `1/2 v^2 + z (1/2 w^2 - w v)`, which is `1/2 w^2 z (1 - z)`.
    """
    v, q, z = at.v, at.q, at.z
    if rows.refit:
        ratio = q / d
        each = 0.5 * v * v + z * ratio * (0.5 * ratio - v)
    else:
        each = 0.5 * v * v + z * rows.W * (0.5 * rows.W - v)
    return each.sum(0).clamp_min(0.0)
