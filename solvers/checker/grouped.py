"""Splits whose D has blocks of a few entries: their definiteness, and the bound at a point and its prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from solvers.checker.piece import Piece
from solvers.checker.rounding import SAFE, TINY, UNIT, Array, dot, down, product, sum_error, up
from solvers.checker.semidefinite import semidefinite

LARGEST = 8
"""Entries of a group: its `2^s` states are all looked at."""


class Unfit(Exception):
    """Groups that prove nothing; the message says why, to follow the words "the split of a row"."""


@dataclass(frozen=True)
class Grouped:
    """Groups of one size s.

    Attributes:
        members: `[B, s]` entries.
        D: `[B, s, s]` blocks.
        least: `[B, s]`, positive, with `D - diag(least)` positive semidefinite.
    """

    members: NDArray[np.int64]
    D: Array
    least: Array


def groups_of(
    piece: Piece, d: Array, pairs: NDArray[np.int64], cross: Array
) -> tuple[Sequence[Grouped], Array]:
    """The groups that off-diagonal entries connect, verified to be a split.

    Args:
        piece: joint, with one curvature and one right-hand side.
        d: `[n]` diagonal of D.
        pairs: `[E, 2]` places of its other entries, the lower index first.
        cross: `[E]` these entries.

    Returns:
        The groups by size, and D `[n, n]`.

    Raises:
        Unfit: if D is not positive definite, `H - D` not positive semidefinite, or the groups do not
            fit the pools.
    """
    if not piece.refit or piece.b.shape[::2] != (1, 1):
        raise Unfit("has blocks, but is not of a lone joint row")
    n, pool = piece.n, np.repeat(np.arange(len(piece.sizes)), piece.sizes)
    if not (np.isfinite(d).all() and np.isfinite(cross).all()):
        raise Unfit("holds a number that is not finite")
    i, j = pairs.T
    if ((i < 0) | (i >= j) | (j >= n)).any() or len(np.unique(pairs, axis=0)) < len(pairs):
        raise Unfit("has blocks with an entry that is out of place")
    if len(pairs) > n * (LARGEST - 1) // 2:
        raise Unfit(f"has blocks of more than {LARGEST} entries")
    if (pool[i] != pool[j]).any():
        raise Unfit("has a block across pools")
    D = np.diag(d)
    D[i, j] = D[j, i] = cross
    grouped = []
    groups = _components(n, pairs)
    for size in sorted({len(group) for group in groups}):
        if size > LARGEST:
            raise Unfit(f"has a block of {size} entries, more than {LARGEST}")
        members = np.array([group for group in groups if len(group) == size])
        blocks = D[members[:, :, None], members[:, None, :]]
        grouped.append(Grouped(members, blocks, np.stack([_least(block) for block in blocks])))
    R = piece.H[0] - D
    if reason := semidefinite(R, up(SAFE * (piece.H_error[0] + UNIT * np.abs(R)))):
        raise Unfit(f"leaves a remainder not shown to be positive semidefinite: {reason}")
    return grouped, D


def grouped_bounds(
    piece: Piece, grouped: Sequence[Grouped], D: Array, u: Array, price: Array
) -> tuple[float, Array]:
    """The bound of a split in blocks, at the budget, and for every pruned count of a single pool.

    With `R = H - D`, `q = b - R u`, and any price t of keeping an entry of a pool,

        LB = constant - 1/2 u'Ru - sum_pool t keep - sum_B max_{S in B} (1/2 q_S' (D_SS)^-1 q_S - t |S|)

    Args:
        piece: the decisions.
        grouped: verified groups (`groups_of`).
        D: `[n, n]`.
        u: `[n]`.
        price: `[pools]`.

    Raises:
        Unfit: if a block is singular in floating point.

    Returns:
        The bound, and `[n + 1]` bounds by pruned count, empty where there are several pools.
    """
    point = u[:, None]
    (Hu, H_error), (Du, D_error) = product(piece.H[0], point), product(D, point)
    y = Hu - Du
    error = H_error + D_error + SAFE * (piece.H_error[0] @ np.abs(point)) + piece.n * TINY
    error = up(SAFE * (error + UNIT * np.abs(y)))
    bend, bend_error = dot(point, y, error, (0, 1))
    q = piece.b[0] - y
    slack = up(SAFE * (error + piece.b_error[0] + UNIT * np.abs(q)))
    base = down(piece.constant - 0.5 * up(bend + bend_error))
    pool = np.repeat(np.arange(len(piece.sizes)), piece.sizes)
    parts = [_best(group, q[:, 0], slack[:, 0], price[pool[group.members[:, 0]]]) for group in grouped]
    taken = np.concatenate(parts)

    def low(keep: NDArray[np.int64]) -> float:
        terms = np.concatenate([taken, up(price * keep)])
        total = terms.sum()
        total = up(total + sum_error(len(terms) + 1, np.abs(terms).sum()))
        found = float(down(base - total))
        return max(found, piece.floor) if np.isfinite(found) else -np.inf

    if len(piece.prune) > 1:
        return low(piece.keep), np.zeros(0)
    return low(piece.keep), np.array([low(np.array([piece.n - k])) for k in range(piece.n + 1)])


def _best(group: Grouped, q: Array, slack: Array, price: Array) -> Array:
    """`[B]` from above the best state of every group, for every q within its slack.

    For any w, with `r = q_S - D_SS w`,

        q_S' D_SS^-1 q_S = w'(q_S + r) + r' D_SS^-1 r

    and the last term is at most `sum r_i^2 / least_i`. The norm in `D_SS^-1` of what q is off adds to that
    of q. Sums have at most `LARGEST` terms.
    """
    best = np.zeros(len(price))
    for count in range(1, group.members.shape[1] + 1):
        for S in combinations(range(group.members.shape[1]), count):
            at, D, least = group.members[:, S], group.D[np.ix_(range(len(best)), S, S)], group.least[:, S]
            try:
                w = np.linalg.solve(D, q[at][:, :, None])[:, :, 0]
            except np.linalg.LinAlgError:
                raise Unfit("has a block that is singular in floating point") from None
            terms = D * w[:, None, :]
            r = q[at] - terms.sum(axis=2)
            r_error = up(
                sum_error(count + 1, np.abs(terms).sum(axis=2)) + SAFE * UNIT * (np.abs(q[at]) + np.abs(r))
            )
            both: Array = q[at] + r
            main, main_error = dot(
                np.asarray(w, np.float64), both, up(r_error + SAFE * UNIT * np.abs(both)), (1,)
            )
            own = _norm(np.abs(r) + r_error, least)
            square = np.maximum(up(up(main + main_error) + up(own * own)), 0.0)
            size = up(up(np.sqrt(square)) + _norm(slack[at], least))
            score = up(up(0.5 * up(size * size)) - down(count * price))
            best = np.where(score > best, score, np.where(np.isnan(score), np.inf, best))
    return best


def _norm(x: Array, least: Array) -> Array:
    """`[B]` from above `(sum x_i^2 / least_i)^1/2`, for x not negative."""
    parts = up(up(SAFE * x) / down(np.sqrt(least)))
    squares = up(parts * parts)
    return np.asarray(up(np.sqrt(up(SAFE * squares.sum(axis=1)))))


def _components(n: int, pairs: NDArray[np.int64]) -> list[list[int]]:
    """The entries of each group, rising."""
    group = {k: [k] for k in range(n)}
    for i, j in pairs.tolist():
        if group[i] is not group[j]:
            joined = group[i] + group[j]
            for k in joined:
                group[k] = joined
    return sorted({id(g): sorted(g) for g in group.values()}.values())


def _least(D: Array) -> Array:
    """`[s]` positive numbers with `D - diag(least)` positive definite, shown in rational arithmetic.

    Scaled by powers of two to a diagonal near one, half of the smallest eigenvalue found is taken.
    """
    diagonal = np.diagonal(D)
    if not (diagonal > 0).all():
        raise Unfit("has a block that is not positive definite")
    if len(D) == 1:
        return np.array(diagonal)
    power = np.rint(0.5 * np.log2(diagonal)).astype(np.int32)
    low = float(np.linalg.eigvalsh(np.ldexp(D, -(power[:, None] + power[None, :])))[0])
    for share in (0.5, 0.125):
        least = np.ldexp(share * low, 2 * power)
        if (least > 0).all() and _definite(D, least):
            return np.asarray(least)
    raise Unfit("has a block that is not positive definite")


def _definite(D: Array, least: Array) -> bool:
    """Whether `D - diag(least)` is positive definite: every pivot of its elimination is positive."""
    A = [[Fraction(x) for x in row] for row in D.tolist()]
    for i, x in enumerate(least.tolist()):
        A[i][i] -= Fraction(x)
    for k, row in enumerate(A):
        if row[k] <= 0:
            return False
        for lower in A[k + 1 :]:
            share = lower[k] / row[k]
            for c in range(k + 1, len(A)):
                lower[c] -= share * row[c]
    return True
