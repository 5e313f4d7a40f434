"""The bounds of many rows at their points (`solvers.bounds.evaluate`): a row each, at a price, or in all."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from solvers.bounds.evaluate import margin, terms
from solvers.bounds.secure import EPS
from solvers.bounds.shared.rows import SharedRows
from solvers.hessian import Array
from solvers.runtime.tensors import Tensor, torch

CHUNK_BYTES = 1 << 28
"""Memory of one temporary."""


def row_bounds(rows: SharedRows, d: Tensor, v: Tensor) -> Array:
    """`[m]` a valid lower bound on every row's cost, for budgets whose pools lie within rows.

    Rows with a price pay it for what they keep, so that every score above it is taken, less the price. Each
    bound is lowered by an a priori estimate of the rounding in its own evaluation; joint ones are not below
    zero.

    Args:
        rows: the rows, in double precision.
        d: `[n]`, or `[m, n]`: `H - diag(d)` is positive semidefinite for certain
            (`solvers.bounds.secure.secure`), and d > 0 when joint.
        v: `[m, n]` any points, in double precision.
    """
    m, n = v.shape
    taken = torch.as_tensor(rows.taken.reshape(m, -1), device=v.device)
    found = []
    for part, base, score in _parts(rows, d, v):
        ranked = score.reshape(len(score), -1, rows.size).sort(dim=2, descending=True).values
        if rows.price is None:
            chosen = torch.arange(rows.size, device=v.device) < taken[part][:, :, None]
            some = torch.where(chosen, ranked, 0.0)
        else:
            some = (ranked - rows.price).clamp_min(0.0)
        total, size = some.sum((1, 2)), some.abs().sum((1, 2))
        if rows.price is not None:
            size = size + 2.0 * abs(rows.price) * rows.size
        found.append(_floor(rows, base - total - margin(n) * size))
    return np.concatenate([low.cpu().numpy() for low in found])


def layer_bound(rows: SharedRows, d: Tensor, v: Tensor) -> float:
    """As `row_bounds`, for one pool over all rows."""
    n = v.shape[1]
    bases, best = _layer(rows, d, v)
    top = best.cpu().numpy()
    parts = [top[i : i + n] for i in range(0, len(top), n)]
    total = math.fsum(float(part.sum()) for part in parts)
    size = math.fsum(float(np.abs(part).sum()) for part in parts)
    constant = math.fsum(bases)
    low = constant - total - margin(n) * size - 8.0 * EPS * (abs(constant) + size)
    return max(low, 0.0) if rows.refit else low


def layer_price(rows: SharedRows, d: Tensor, v: Tensor) -> float:
    """The Lagrangian price of keeping an entry: the least score that one pool over all rows takes."""
    _, best = _layer(rows, d, v)
    return float(best.min()) if len(best) else 0.0


def _layer(rows: SharedRows, d: Tensor, v: Tensor) -> tuple[list[float], Tensor]:
    """The rows' bases, and the scores that one pool over all of them takes."""
    taken, bases, best = int(rows.taken[0]), [], v.new_zeros(0)
    for _, base, score in _parts(rows, d, v):
        bases += base.tolist()
        best = torch.cat([best, score.flatten()])
        best = best.topk(min(taken, len(best)), sorted=False).values
    return bases, best


def curves_at(rows: SharedRows, d: Tensor, v: Tensor) -> Array:
    """`[m, n + 1]` bounds of rows of one pool for every pruned count, from the same points."""
    m, n = v.shape
    found = np.empty((m, n + 1))
    for part, base, score in _parts(rows, d, v):
        ranked = score.sort(dim=1, descending=True).values
        lost = ranked.cumsum(1) + margin(n) * ranked.abs().cumsum(1)
        low = _floor(rows, base[:, None] - torch.cat([torch.zeros_like(lost[:, :1]), lost], dim=1))
        found[part] = (low.flip(1) if rows.refit else low).cpu().numpy()
    return found


def _parts(rows: SharedRows, d: Tensor, v: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Chunks of rows with their bases, from below, and scores `[., n]`, from above."""
    m, n = v.shape
    step = max(1, CHUNK_BYTES // (8 * n))
    for first in range(0, m, step):
        part = slice(first, min(first + step, m))
        W, D = rows.W[part], d if d.ndim == 1 else d[part]
        B = W @ rows.H if rows.refit else W.new_zeros(1) if rows.C is None else rows.C[part]
        base, score = terms(rows.refit, rows.H, D, W, B, v[part])
        yield part, base + 0.5 * (W * B).sum(1) if rows.refit else base, score


def _floor(rows: SharedRows, low: Tensor) -> Tensor:
    return low.clamp_min(0.0) if rows.refit else low
