"""Newton's steps of wide rows without their matrix: conjugate gradients, and a matrix near it to solve with.

What a step of the variables (q, D, t) of `solvers.bounds.groups.barrier` adds to the objective's second
order, with `S = R^-1`, is

    1/2 x' G x  +  1/2 (dq - dD y)' S (dq - dD y)  +  1/2 tr(dD S dD L)

G links the variables of one group with each other and with the price of its pool. dD has blocks of s entries,
and only the blocks of `S dD L` are asked for, so that a product takes `4 n^2 s` operations, not the
`(n s / 2)^2` of the matrix, which isn't formed or factored either.

Between two groups, the last term is about the squares of what R^-1 and L have across them, and groups are
chosen so that these are small. Without them,

    M = G + (the last term inside groups) + J' S J,    J x = dq - dD y,

and `M x = r` is solved by way of `l = S J x`: one matrix of n rows, `R + J G^-1 J'`, of which the second part
is block diagonal, and the prices after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.linalg

from solvers.bounds.groups.barrier import GroupSystem, Multipliers, Point, Step, Sums
from solvers.bounds.groups.states import Index, entries
from solvers.hessian import Array
from solvers.runtime.compiled import FLAGS, njit
from solvers.runtime.unlocked import factored

lapack = scipy.linalg.lapack

SETTLED = 0.3
"""Residual at which a step is near enough, relative to the first, in the norm of M."""
MOST = 60
"""Products a step at most."""
WIDE = 700
"""Variables from which on conjugate gradients take less time than a factorisation."""


def conjugate_step(
    system: GroupSystem, point: Point, dual: Multipliers, T: float, settled: float = SETTLED
) -> Step | None:
    """A step as `solvers.bounds.groups.newton.newton_step`, short of it by what conjugate gradients leave.

    Args:
        system: whose blocks are variables.
        point: where to step from.
        dual: its multipliers.
        T: temperature.
        settled: residual at which the step is near enough, relative to the first, in the norm of M.

    Returns:
        The step; None if rounding leaves the matrix indefinite.
    """
    sums = Sums.of(system, point, dual, T)
    matrix = Matrix.of(system, point, dual, sums.curves)
    near = Near.of(system, point, dual, matrix)
    if near is None:
        return None
    dx, rest = np.zeros_like(sums.gradient), -sums.gradient
    ahead = moved = near.solve(rest)
    size = first = float(rest @ moved)
    for _ in range(MOST):
        product = matrix @ ahead
        curve = float(ahead @ product)
        if not (size > 0.0 and curve > 0.0):
            return None
        dx = dx + size / curve * ahead
        rest = rest - size / curve * product
        moved = near.solve(rest)
        size, last = float(rest @ moved), size
        if size <= settled**2 * first:
            break
        ahead = moved + size / last * ahead
    return sums.step(system, point, dual, T, dx)


@dataclass(frozen=True)
class Matrix:
    """Newton's matrix at a point, as what it does to a vector.

    Attributes:
        system: whose matrix it is.
        point: where.
        curves: `[B, v, v]` of every family, G.
        order: `[n]` entries, group by group.
        S, L: `[n, n]` R^-1 and its multipliers in that order.
        starts: `[groups + 1]` where groups start there.
    """

    system: GroupSystem
    point: Point
    curves: list[Array]
    order: Index
    S: Array
    L: Array
    starts: Index

    @classmethod
    def of(cls, system: GroupSystem, point: Point, dual: Multipliers, curves: list[Array]) -> Matrix:
        """The matrix, from the lower halves of G."""
        order = np.concatenate([at.ravel() for at in system.families])
        sizes = np.concatenate([np.full(len(at), at.shape[1]) for at in system.families])
        starts = np.concatenate([[0], np.cumsum(sizes)])
        whole = [np.tril(curve) + np.tril(curve, -1).transpose(0, 2, 1) for curve in curves]
        S, L = (np.ascontiguousarray(A[np.ix_(order, order)]) for A in (point.S, dual.L))
        return cls(system, point, whole, order, S, L, starts)

    def __matmul__(self, x: Array) -> Array:
        system, y = self.system, self.point.y
        out, D = np.zeros_like(x), system.blocks(x)
        u = np.empty(system.n)
        for at, d in zip(system.families, D, strict=True):
            u[at] = x[at] - np.einsum("bij,bj->bi", d, y[at])
        u = self.point.S @ u
        packed = np.concatenate([d.ravel() for d in D])
        around(self.starts, self.S, self.L, packed, M := np.empty(len(packed)))
        first = 0
        for at, columns, curve in zip(system.families, system.columns, self.curves, strict=True):
            groups, s = at.shape
            i, j, half = entries(s)
            A = M[first : first + groups * s * s].reshape(groups, s, s) - u[at][:, :, None] * y[at][:, None]
            first += groups * s * s
            np.add.at(out, columns, np.einsum("bij,bj->bi", curve, x[columns]))
            out[columns[:, s : s + len(i)]] += half * (A[:, i, j] + A[:, j, i])
        out[: system.n] += u
        return out


class Part(NamedTuple):
    """A family in the matrix that is near Newton's.

    Attributes:
        members: `[B, s]`.
        prices: `[B, p]` their prices, of which a group has one, or none where it is whole pools.
        columns: `[B, v]` places of its variables, prices left out.
        inverse: `[B, v, v]` of G inside groups.
        J: `[B, s, v]`.
        across: `[B, v, s]` of `G^-1 J'`.
        price: `[B, v, p]` G between the variables and the price.
        paid: `[B, v, p]` of `G^-1 price`.
    """

    members: Index
    prices: Index
    columns: Index
    inverse: Array
    J: Array
    across: Array
    price: Array
    paid: Array


@dataclass(frozen=True)
class Near:
    """The matrix M: Newton's without what L couples between groups.

    Attributes:
        parts: of every family.
        factor: `[n, n]` Cholesky factor of `R + J G^-1 J'`.
        prices: `[n, pools]` of `J G^-1 price`.
        solved: `[n, pools]` the same, solved with the factor.
        last: `[pools, pools]` what is left for the prices.
    """

    parts: list[Part]
    factor: Array
    prices: Array
    solved: Array
    last: Array

    @classmethod
    def of(cls, system: GroupSystem, point: Point, dual: Multipliers, matrix: Matrix) -> Near | None:
        """M at a point; None if rounding leaves a part of it indefinite."""
        n, pools = system.n, len(system.keep)
        K = system.H - system.whole(point.x)
        prices, last, parts = np.zeros((n, pools)), np.zeros((pools, pools)), []
        for at, columns, curve in zip(system.families, system.columns, matrix.curves, strict=True):
            i, j, half = entries(at.shape[1])
            v = at.shape[1] + len(i)
            G, price = curve[:, :v, :v].copy(), curve[:, :v, v:]
            own = columns[:, v:] - system.prices
            inside(at, i, j, half, point.S, dual.L, G)
            diagonal = np.arange(G.shape[1])
            G[:, diagonal, diagonal] *= 1.0 + 1e-13
            try:
                np.linalg.cholesky(G)
            except np.linalg.LinAlgError:
                return None
            inverse = np.asarray(np.linalg.inv(G), dtype=np.float64)
            J = moves(at, point.y)
            across = inverse @ J.transpose(0, 2, 1)
            paid = inverse @ price
            K[at[:, :, None], at[:, None, :]] += J @ across
            np.add.at(prices, (at[:, :, None], own[:, None]), J @ paid)
            np.add.at(last, (own, own), (curve[:, v:, v:] - price.transpose(0, 2, 1) @ paid).sum(axis=1))
            parts.append(Part(at, own, columns[:, :v], inverse, J, across, price, paid))
        factor = factored(K)
        if factor is None:
            return None
        solved = lapack.dpotrs(factor, prices, lower=1)[0]
        return cls(parts, factor, prices, solved, last + prices.T @ solved)

    def solve(self, r: Array) -> Array:
        """`M^-1 r`."""
        n, pools = self.prices.shape
        x, pull, t, first = np.empty_like(r), np.empty(n), r[len(r) - pools :].copy(), []
        for part in self.parts:
            own = np.einsum("bij,bj->bi", part.inverse, r[part.columns])
            pull[part.members] = np.einsum("bsv,bv->bs", part.J, own)
            np.subtract.at(t, part.prices, (part.price * own[:, :, None]).sum(axis=1))
            first.append(own)
        t[:] = np.linalg.solve(self.last, t + self.solved.T @ pull)
        level = lapack.dpotrs(self.factor, pull, lower=1)[0] - self.solved @ t
        for part, own in zip(self.parts, first, strict=True):
            back = np.einsum("bvs,bs->bv", part.across, level[part.members])
            x[part.columns] = own - back - np.einsum("bvp,bp->bv", part.paid, t[part.prices])
        x[len(r) - pools :] = t
        return x


def moves(members: Index, y: Array) -> Array:
    """`[B, s, v]` of J: `dq - dD y` of groups, by their q and the entries of their blocks."""
    groups, s = members.shape
    i, j, _ = entries(s)
    J = np.zeros((groups, s, s + len(i)))
    J[:, np.arange(s), np.arange(s)] = 1.0
    J[:, i, s + np.arange(len(i))] = -y[members[:, j]]
    J[:, j, s + np.arange(len(i))] = -y[members[:, i]]
    return J


@njit(cache=True, nogil=True, fastmath=FLAGS)
def around(starts, S, L, blocks, out):  # type: ignore[no-untyped-def]
    """The diagonal blocks of `S D L`.

    Args:
        starts: `[groups + 1]` first rows of groups.
        S: `[n, n]` symmetric.
        L: the same.
        blocks: D's, one after the other.
        out: the same of the product, filled.
    """
    n, widest = len(S), 0
    for b in range(len(starts) - 1):
        widest = max(widest, starts[b + 1] - starts[b])
    U = np.empty((widest, n))
    here = 0
    for b in range(len(starts) - 1):
        low, size = starts[b], starts[b + 1] - starts[b]
        for i in range(size):
            at = 0
            for c in range(len(starts) - 1):
                left, width = starts[c], starts[c + 1] - starts[c]
                for k in range(width):
                    total = 0.0
                    for m in range(width):
                        total += S[low + i, left + m] * blocks[at + m]
                    U[i, left + k] = total
                    at += width
        for i in range(size):
            for j in range(size):
                total = 0.0
                for k in range(n):
                    total += U[i, k] * L[low + j, k]
                out[here + j] = total
            here += size


@njit(cache=True, nogil=True, fastmath=FLAGS)
def inside(members, first, second, half, S, L, G):  # type: ignore[no-untyped-def]
    """Add `tr(E S E' L)` to the matrices of groups, in the entries of their blocks.

    Args:
        members: `[B, s]`.
        first: of `solvers.bounds.groups.states.entries`.
        second: the same.
        half: the same.
        S: `[n, n]` symmetric.
        L: the same.
        G: `[B, v, v]`, added to.
    """
    s = members.shape[1]
    for b in range(len(members)):
        for e in range(len(first)):
            i, j = members[b, first[e]], members[b, second[e]]
            for g in range(len(first)):
                k, m = members[b, first[g]], members[b, second[g]]
                pairs = S[i, k] * L[j, m] + S[i, m] * L[j, k] + S[j, k] * L[i, m] + S[j, m] * L[i, k]
                G[b, s + e, s + g] += half[e] * half[g] * pairs
