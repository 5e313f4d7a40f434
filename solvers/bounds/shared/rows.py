"""Rows of one curvature as tensors, so that a step of all their relaxations is one matrix product."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.evaluate import margin, terms
from solvers.bounds.secure import EPS
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.problem import SubsetProblem
from solvers.runtime.tensors import Tensor, torch

CHUNK_BYTES = 1 << 28
"""Memory of one temporary."""


@dataclass(frozen=True)
class SharedRows:
    """Rows `W [m, n]` that share `H [n, n]`, under any budget whose pools are runs of equal length.

    Attributes:
        refit: joint, or selection.
        H: `[n, n]`.
        W: `[m, n]`.
        C: `[m, n]` linear terms `g o w` of a selection problem, or None.
        size: entries of a pool: n, those of a group, or m n. Pools follow each other row by row.
        keep: `[P]` entries that each pool keeps.
        price: of keeping an entry, positive, or None. At a price a joint row may keep as many as it likes
            (keep counts for nothing), and bounds are on its cost and what it pays.
    """

    refit: bool
    H: Tensor
    W: Tensor
    C: Tensor | None
    size: int
    keep: NDArray[np.int64]
    price: float | None = None

    @classmethod
    def of(cls, problem: SubsetProblem, device: str = "cpu") -> SharedRows:
        """The rows of a reduced problem with a shared curvature, in double precision.

        Raises:
            ValueError: if rows have curvatures of their own, or share one mask.
        """
        if not shareable(problem):
            raise ValueError("rows must share one curvature, and no mask")
        C = None if problem.G is None else _tensor(problem.G * problem.W, device)
        H, W = _tensor(problem.hessian.dense(0), device), _tensor(problem.W, device)
        return cls(problem.refit, H, W, C, int(problem.pools.sizes[0]), problem.pools.keep)

    @classmethod
    def stacked(cls, found: Sequence[Block], device: str = "cpu") -> SharedRows:
        """Joint blocks as rows; they must be `alike`."""
        W = np.stack([block.W[0, :, 0] for block in found])
        keep = np.concatenate([block.keep for block in found])
        size = found[0].n // len(found[0].keep)
        return cls(True, _tensor(found[0].H[0], device), _tensor(W, device), None, size, keep)

    def priced(self, price: float) -> SharedRows:
        """The rows of one pool on their own, at a price (Lagrange's) of keeping an entry."""
        m, n = self.W.shape
        return replace(self, size=n, keep=np.full(m, n), price=price)

    @property
    def taken(self) -> NDArray[np.int64]:
        """`[P]` entries whose indicators sum up: those kept (joint), or pruned (selection)."""
        return self.keep if self.refit else self.size - self.keep

    @property
    def whole(self) -> bool:
        """Whether one pool holds all rows."""
        return self.size > self.W.shape[1]

    def pooled(self, A: Tensor) -> Tensor:
        """`[m, n]` as `[P, size]`."""
        return A.reshape(-1, self.size)

    def some(self, index: NDArray[np.int64]) -> SharedRows:
        """Some of the rows; a pool of the whole layer keeps its share of them."""
        m, n = self.W.shape
        if self.whole:
            keep = np.array([round(int(self.keep[0]) * len(index) / m)])
            size = n * len(index)
        else:
            keep, size = self.keep.reshape(m, -1)[index].ravel(), self.size
        C = None if self.C is None else self.C[index]
        return replace(self, W=self.W[index], C=C, size=size, keep=keep)


def alike(found: Sequence[Block]) -> bool:
    """Whether blocks are lone joint rows of one curvature, with as many pools, all of one size."""
    first = found[0]
    labels = np.arange(first.n) * len(first.keep) // first.n
    return first.n % len(first.keep) == 0 and all(
        b.refit
        and b.B.shape == (1, first.n, 1)
        and b.shared is not None
        and b.shared is first.shared
        and np.array_equal(b.labels, labels)
        for b in found
    )


def shareable(problem: SubsetProblem) -> bool:
    """Whether a reduced problem's rows have masks of their own, and one curvature that may be formed."""
    return problem.hessian.shared and not problem.pools.coupled and not problem.hessian.implicit


def _tensor(A: NDArray[np.float64], device: str) -> Tensor:
    return torch.tensor(A, dtype=torch.float64, device=device)


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
