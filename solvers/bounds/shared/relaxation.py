"""The relaxations of many rows that share a curvature: one split for all, and every row's best point there.

The split is the d that maximises the sum of the rows' bounds, by a barrier method. At a split, all points are
found together by alternating directions, one product of matrices a step.

The relaxation of a row at a split `H = R + diag(d)` is `min_v 1/2 v'Rv - b'v + h(v)`, with `v` the relaxed
weights (joint) or `v = w o x` with relaxed indicators x (selection), and `h` what is left of a row's cost:

    joint      b = H w,  h(v) = min_z 1/2 sum d_i v_i^2 / z_i          over 0 <= z <= 1, sum_pool z = keep
    selection  b = 0,    h(v) = sum (1/2 d_i w_i^2 - c_i) x_i          over 0 <= x <= 1, sum_pool x = prune

Alternating direction steps (Boyd et al. 2011) take the two parts in turn. In the metric `diag(d)` the
quadratic part needs `(R + diag(d))^-1 = H^-1`, which is the same for every split and row:

    v = H^-1 (b + d o (y - l)),    y = prox_h(v + l),    l = l + v - y

and `R v = b + d o (y - l - v)` comes for free. Every v gives a valid bound
(`solvers.bounds.shared.rows`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from solvers.bounds.secure import secure
from solvers.bounds.shared.rows import SharedRows, layer_bound, row_bounds
from solvers.bounds.waterfill import fill
from solvers.hessian import Array
from solvers.runtime.tensors import Tensor, torch

Stopped = Callable[[], object]

SAMPLE = 512
"""Rows that a split is made for, evenly spread over the layer."""
SHIFT = 0.3
"""How far below zero a selection's split may go, in units of the mean diagonal."""
STEPS, ROUNDS = 10, 40
"""Steps of the relaxations between two looks at them, and how many looks at most."""
SETTLED = 1e-4
"""Distance of a relaxation's two parts, relative to their size, at which it is left."""
UNSETTLED = 0.01
"""Share of the rows that need not be that near."""
NEGLIGIBLE = 1e-12
"""Share of the largest squared weight, or relaxed weight of a pool, that all count for at least."""
CHUNK_BYTES = 1 << 28
"""Memory of one array of the relaxations, where rows have pools of their own."""
RELAX = 1.7
"""Over-relaxation of the quadratic part's point."""
LEAST = 1e-30
"""Root of a price, in the search's units, below which single precision does not go."""
OPENING, BETWEEN = 15, 4
"""Steps of the rows' relaxations before the first step of d, and between two."""
COOL = 0.6
"""Factor of the barrier's weight from step to step."""
LAST = 1e-3
"""Weight of the barrier at the end, relative to the first."""
NEAR = 0.9
"""Share of the way to the boundary that a step may go."""
STUCK = 1e-3
"""A step shorter than this ends the method."""
SHRINK = 0.3
"""Share of an entry of d that a step leaves of it at least."""


@dataclass(frozen=True)
class SharedSplit:
    """A split that all rows share, and what the search for points at it needs.

    Attributes:
        d: `[n]`, as `solvers.bounds.secure.secure` leaves it.
        shift: what makes `d + shift` positive.
        inverse: `(H + shift I)^-1`.
        steps: taken to choose d.
    """

    d: Tensor
    shift: float
    inverse: Tensor
    steps: int


def choose(rows: SharedRows, stopped: Stopped = lambda: None) -> SharedSplit:
    """A split that serves the sum of the rows' bounds, as good as the barrier method makes it.

    Args:
        rows: the rows, in double precision.
        stopped: polled between steps; a true answer leaves d as good as it is.

    Raises:
        ValueError: if H is too close to singular for a certified split.
    """
    m, n = rows.W.shape
    H, shift = rows.H, 0.0
    if not rows.refit:
        shift = SHIFT * _unit(H.diagonal())
        H = H + shift * torch.eye(n, dtype=H.dtype, device=H.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(H))
    d, steps = largest_split(H, inverse), 0
    if not trivial(rows):
        some = np.unique(np.linspace(0, m - 1, min(m, SAMPLE)).astype(np.int64))
        sample = replace(rows.some(some), H=H)
        d, _, steps = shared_split(sample, inverse, d, shift=shift, stopped=stopped)
    safe = secure(rows.H.cpu().numpy(), (d - shift).cpu().numpy(), rows.refit)
    return SharedSplit(torch.as_tensor(safe, device=H.device), shift, inverse, steps)


def relax(rows: SharedRows, split: SharedSplit, stopped: Stopped = lambda: None) -> tuple[Tensor, Tensor]:
    """Points and relaxed indicators of all rows at a split: `v`, `z [m, n]`; z is the share kept.

    The search is in single precision, and in chunks of rows where their pools lie within rows. Chunks that
    a true answer of `stopped` leaves out have `v = w`, where joint bounds are about zero.
    """
    m, n = rows.W.shape
    keep = torch.as_tensor(rows.keep, device=rows.W.device)[:, None]
    v, z = rows.W.clone(), (keep / rows.size).double().expand(-1, rows.size).reshape(m, n).clone()
    unit, size = _unit(rows.H.diagonal()), _unit(rows.W.abs().amax(0))
    cost = unit * size**2
    C = None if rows.C is None else (rows.C / cost).float()
    price = None if rows.price is None else rows.price / cost
    search = replace(rows, H=rows.H.new_zeros(0), W=(rows.W / size).float(), C=C, price=price)
    inverse, shift = (split.inverse * unit).float(), split.shift / unit
    d = (split.d / unit + shift).float()
    step = m if rows.whole else max(1, CHUNK_BYTES // (4 * n))
    for first in range(0, 0 if trivial(rows) else m, step):
        some = search.some(np.arange(first, min(first + step, m)))
        at = _settle(some, d, inverse, shift, stopped)
        if at is not None:
            v[first : first + step] = at.v.double() * size
            z[first : first + step] = (at.z if rows.refit else 1.0 - at.z).double()
    if rows.price is not None:
        return v, (torch.sqrt(split.d / (2.0 * rows.price)) * v.abs()).clamp(max=1.0)
    # Pools that keep all or nothing have a best point in closed form.
    if rows.refit:
        Z = rows.pooled(torch.sqrt(split.d) * v.abs())
        Z = Z + NEGLIGIBLE * Z.amax(1, keepdim=True)
        z = fill(torch.zeros_like(Z), Z, keep.double())[0].reshape(m, n)
    none, every = (keep == 0), (keep == rows.size)
    V, Z = rows.pooled(v), rows.pooled(z)
    Z = torch.where(none, 0.0, torch.where(every, 1.0, Z))
    at_none, at_every = (0.0, rows.pooled(rows.W)) if rows.refit else (rows.pooled(rows.W), 0.0)
    V = torch.where(none, at_none, torch.where(every, at_every, V))
    return V.reshape(m, n), Z.reshape(m, n)


def bounds(rows: SharedRows, split: SharedSplit, v: Tensor) -> Array:
    """`[m]` the rows' bounds, or `[1]` that of the layer where its pool is one."""
    if rows.whole:
        return np.array([layer_bound(rows, split.d, v)])
    return row_bounds(rows, split.d, v)


def trivial(rows: SharedRows) -> bool:
    """Whether every pool keeps all or nothing."""
    return rows.price is None and bool(((rows.keep == 0) | (rows.keep == rows.size)).all())


def _unit(A: Tensor) -> float:
    """The mean, or one where that is zero."""
    return float(A.mean()) or 1.0


def _settle(rows: SharedRows, d: Tensor, inverse: Tensor, shift: float, stopped: Stopped) -> Ascent | None:
    at = None
    for _ in range(ROUNDS):
        if stopped():
            break
        at = ascend(rows, d, inverse, at or start(rows), STEPS, shift)
        apart, size = (d * (at.v - at.y) ** 2).sum(1), (d * at.y**2).sum(1)
        if int((apart > SETTLED**2 * size).sum()) <= UNSETTLED * len(apart):
            break
    return at


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


def largest_split(H: Tensor, inverse: Tensor) -> Tensor:
    """`[n]` most of the way to the boundary along `d = t / diag(H^-1)`."""
    scale = torch.diagonal(inverse).rsqrt()
    A = inverse * scale[:, None] * scale[None, :]
    x = torch.ones_like(scale)
    for _ in range(30):
        x = A @ (x / torch.linalg.vector_norm(x))
    d: Tensor = NEAR / torch.linalg.vector_norm(x) * scale**2
    while not _definite(H, d):
        d = 0.7 * d
    return d


def shared_split(
    rows: SharedRows,
    inverse: Tensor,
    d: Tensor,
    *,
    shift: float = 0.0,
    most: int | None = None,
    stopped: Stopped = lambda: None,
) -> tuple[Tensor, Ascent, int]:
    """Improve a split of all rows, from one strictly inside.

    With the rows' relaxations at hand, g is the gradient of the sum of their bounds
    (`slope`), and a step of d is a Newton step on

        -sum_i g_i d_i^2 / d'_i  +  mu log det(H - diag(d'))  +  mu sum_i log d'_i

    whose first term has that gradient, and curvature as if a bound's scores `q^2 / (2 d)` alone changed. Then
    mu falls. Each step costs a few `n^3`; the relaxations follow by a few products each.

    Args:
        rows: the rows, in double precision; H positive definite.
        inverse: `H^-1`.
        d: `[n]` positive, with `H - diag(d)` positive definite.
        shift: what was added to the diagonal of a selection problem's H, so that d is positive.
        most: steps at most.
        stopped: polled between steps; a true answer ends them.

    Returns:
        d, the relaxations there, and the number of steps.
    """
    at = ascend(rows, d, inverse, start(rows), OPENING, shift)
    S = _inverse(rows.H, d)
    mu = first = 0.0
    steps = 0
    while mu >= LAST * first and steps != most and not stopped():
        g = slope(rows, d, at)
        if not steps:
            mu = first = float((g * d).sum()) / len(d)
            if mu == 0.0:
                break
        M = mu * S * S + torch.diag(2.0 * g / d + mu / d**2)
        move = _solve(M, g + mu / d - mu * torch.diagonal(S))
        if move is None:
            break
        steps += 1
        d, reach = _move(rows.H, d, torch.maximum(move, (SHRINK - 1.0) * d))
        if not reach:
            break
        S = _inverse(rows.H, d)
        at = ascend(rows, d, inverse, at, BETWEEN, shift)
        if reach > 0.5:
            mu *= COOL
    return d, at, steps


def _move(H: Tensor, d: Tensor, move: Tensor) -> tuple[Tensor, float]:
    reach = 1.0
    while reach > STUCK:
        if _definite(H, d + reach / NEAR * move) and _definite(H, d + reach * move):
            return d + reach * move, reach
        reach *= 0.7
    return d, 0.0


def _definite(H: Tensor, d: Tensor) -> bool:
    return int(torch.linalg.cholesky_ex(H - torch.diag(d)).info) == 0


def _inverse(H: Tensor, d: Tensor) -> Tensor:
    inverse: Tensor = torch.cholesky_inverse(torch.linalg.cholesky(H - torch.diag(d)))
    return inverse


def _solve(A: Tensor, b: Tensor) -> Tensor | None:
    """`A^-1 b`, or None if rounding leaves A indefinite."""
    factor, info = torch.linalg.cholesky_ex(A)
    return None if int(info) else torch.cholesky_solve(b[:, None], factor)[:, 0]
