"""The best point and price of a row at blocks that are given, by Newton's method on smoothed choices.

At a split `H = R + D` the bound of `solvers.bounds.groups.split` is minus the minimum over q and t of

    1/2 (b - q)'R^-1 (b - q) + t keep + sum_B max_S (h_S - t |S|)  -  constant

Each maximum is smoothed to `T log sum_S exp(. / T)`, and T falls. Rows that share H and D share `R^-1`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from solvers.bounds.groups.split import EPS, GroupSplit, Index
from solvers.bounds.groups.table import Choices, Table
from solvers.form.blocks import Block
from solvers.hessian import Array

lapack = scipy.linalg.lapack

ENOUGH = 1e-4
"""Fall of the objective along a whole step that is too little, in units of the temperature."""
SHORT = 1e-4
"""Steps shorter than this share of Newton's are not taken."""


@dataclass(frozen=True)
class Place:
    """Where a row stands: residuals `q [n]`, and for every pool the price `t [P]` of keeping an entry."""

    q: Array
    t: Array


@dataclass(frozen=True)
class Shared:
    """What rows share.

    Attributes:
        table: the states of D.
        S: `[n, n]` `(H - D)^-1`.
        pool: `[B]` of every block.
        keep: `[P]` entries that every pool keeps.
    """

    table: Table
    S: Array
    pool: Index
    keep: Array

    @classmethod
    def of(cls, block: Block, split: GroupSplit) -> Shared:
        """A split whose remainder is positive definite.

        Raises:
            ValueError: if it is not.
        """
        n, size = block.n, max(family.members.shape[1] for family in split.families)
        count = sum(len(family.members) for family in split.families)
        members = np.full((count, size), n)
        D = np.broadcast_to(np.diagonal(block.H[0]).mean() * np.eye(size), (count, size, size)).copy()
        at = 0
        for family in split.families:
            part, s = slice(at, at + len(family.members)), family.members.shape[1]
            members[part, :s], D[part, :s, :s] = family.members, family.D
            at = part.stop
        taken = np.arange(1 << size)[:, None] >> np.arange(size) & 1
        allowed = ~((members == n)[:, None, :] & (taken[None] == 1)).any(axis=2)
        table = Table.of(members, allowed, D)
        factor, info = lapack.dpotrf(split.remainder(block.H[0]), lower=1, overwrite_a=1, clean=0)
        if table is None or info:
            raise ValueError("blocks and what they leave must be positive definite")
        S = lapack.dpotri(factor, lower=1, overwrite_c=1)[0]
        S = np.ascontiguousarray(np.tril(S) + np.tril(S, -1).T)
        return cls(table, S, block.labels[members[:, 0]], block.keep.astype(np.float64))


def settle(shared: Shared, b: Array, at: Place, T: float, steps: int) -> tuple[Place, Choices]:
    """Steps towards the minimum at a temperature, and the choices there.

    Args:
        shared: the split.
        b: `[n]` `H w`.
        at: where to start.
        T: temperature.
        steps: at most.
    """
    table, S, pool = shared.table, shared.S, shared.pool
    y = S @ (b - at.q)
    found = table.choices(at.q, at.t[pool], T)
    for _ in range(steps):
        step = _newton(shared, y, found)
        if step is None:
            break
        dq, dt, slope = step
        if -slope <= ENOUGH * T:
            break
        Sdq = S @ dq
        linear, square = -float(y @ dq), float(dq @ Sdq)
        paid = float(dt @ shared.keep)
        reach = 1.0
        while reach > SHORT:
            soft = table.worth(at.q + reach * dq, (at.t + reach * dt)[pool], T)[0]
            change = reach * (linear + paid) + 0.5 * reach * reach * square + soft - found.soft
            if change <= 1e-4 * reach * slope:
                break
            reach *= 0.5
        else:
            break
        at = Place(at.q + reach * dq, at.t + reach * dt)
        y = y - reach * Sdq
        found = table.choices(at.q, at.t[pool], T)
    return at, found


def bound_at(shared: Shared, block: Block, R: Array, at: Place) -> float:
    """The bound of a row at its residuals and prices, lowered by what rounding may add to its evaluation.

    Args:
        shared: a split for which `R >= 0` for certain (`solvers.bounds.groups.split.secure_groups`).
        block: the row.
        R: `[n, n]` `H - D`.
        at: the point is `u = R^-1 (b - q)`, as it comes out.
    """
    H, W, b = block.H[0], block.W[0, :, 0], block.B[0, :, 0]
    gamma = 4.0 * (block.n + 8) * EPS
    u = shared.S @ (b - at.q)
    Ru, size = R @ u, np.abs(R) @ np.abs(u)
    own = np.abs(H) @ np.abs(W)
    taken, around = shared.table.best(b - Ru, gamma * (own + size), at.t[shared.pool])
    if not np.isfinite(taken):
        return block.floor
    around += 0.5 * float(np.abs(u) @ size) + block.constant + 0.5 * float(np.abs(W) @ own)
    rounding = gamma * (around + float(shared.keep @ np.abs(at.t)))
    low = block.constant - 0.5 * float(u @ Ru) - float(shared.keep @ at.t) - taken - rounding
    return max(block.floor, low)


def _newton(shared: Shared, y: Array, found: Choices) -> tuple[Array, Array, float] | None:
    """Newton's step in q and t, and the objective's slope along it; None if rounding spoils its matrix."""
    n, members, pools = len(y), shared.table.members, len(shared.keep)
    real = members < n
    at = members[real]
    gradient = -y
    gradient[at] += found.g[real]
    M = shared.S.copy()
    both = real[:, :, None] & real[:, None, :]
    i, j = (np.broadcast_to(k, both.shape)[both] for k in (members[:, :, None], members[:, None, :]))
    M[i, j] += found.C[:, :-1, :-1][both]
    factor, info = lapack.dpotrf(M.T, lower=0, overwrite_a=1, clean=0)
    if info:
        return None
    right = np.zeros((n, pools + 1))
    right[:, -1] = gradient
    owner = np.broadcast_to(shared.pool[:, None], members.shape)[real]
    right[at, owner] = found.C[:, -1, :-1][real]
    x = lapack.dpotrs(factor, right, lower=0)[0]
    left = np.diag(np.bincount(shared.pool, found.C[:, -1, -1], pools)) - right[:, :-1].T @ x[:, :-1]
    short = shared.keep - np.bincount(shared.pool, found.count, pools)
    left[np.diag_indices(pools)] += 1e-12 * np.trace(left) + 1e-300
    dt = np.linalg.solve(left, right[:, :-1].T @ x[:, -1] - short)
    dq = -x[:, -1] - x[:, :-1] @ dt
    return dq, dt, float(gradient @ dq) + float(short @ dt)
