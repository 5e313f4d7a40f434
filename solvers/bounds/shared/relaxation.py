"""Bounds of layers of any width with a shared curvature: a split for all rows, and every row's own point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from solvers.bounds.secure import secure
from solvers.bounds.shared.admm import Ascent, ascend, start
from solvers.bounds.shared.layer_bound import layer_bound, row_bounds
from solvers.bounds.shared.rows import SharedRows
from solvers.bounds.shared.split import largest_split, shared_split
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
"""Share of a pool's largest relaxed weight that all have at least, so that indicators can sum up."""
CHUNK_BYTES = 1 << 28
"""Memory of one array of the relaxations, where rows have pools of their own."""


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
