"""Splits whose D has blocks of a few entries: that D is definite, block by block, and what it leaves of H."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from solvers.checker.piece import Piece
from solvers.checker.rounding import SAFE, UNIT, Array, sum_error, up
from solvers.checker.semidefinite import semidefinite

LARGEST = 8
"""Entries of a group: its `2^s` states are all looked at."""
CLEAR = 2.0**-40
"""Eigenvalues of a block, scaled to a diagonal near one, that floating point can tell from zero."""


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

    @cached_property
    def inverse(self) -> Array:
        """`[B, 2^s, s, s]` about `(D_SS)^-1` of every set S of entries, numbered by its bits; else zero.

        By bordering, in floating point: nothing is taken for granted of it.
        """
        count, size = self.members.shape
        out = np.zeros((count, 1 << size, size, size))
        for k in range(size):
            without = out[:, : 1 << k]
            column = self.D[:, None, :, k]
            x = (without * column[:, :, None, :]).sum(axis=3)
            pivot = column[:, :, k] - (x * column).sum(axis=2)
            x[:, :, k] = -1.0
            share = x / np.where(pivot > 0.0, pivot, np.inf)[:, :, None]
            out[:, 1 << k : 2 << k] = without + share[:, :, :, None] * x[:, :, None, :]
        return out


def groups_of(
    piece: Piece,
    d: Array,
    pairs: NDArray[np.int64],
    cross: Array,
    root: NDArray[np.int8] | None = None,
) -> tuple[Sequence[Grouped], Array]:
    """The groups that off-diagonal entries connect, verified to be a split.

    Args:
        piece: joint, with one curvature and one right-hand side.
        d: `[n]` diagonal of D.
        pairs: `[E, 2]` places of its other entries, the lower index first.
        cross: `[E]` these entries.
        root: `[n]` the fixings that it assumes: 1 kept, -1 pruned, 0 free. None is zeros.

    Returns:
        The groups of what is not assumed pruned, by size, and D `[n, n]`, zero on the rest.

    Raises:
        Unfit: if D is not positive definite, or `H - D` not positive semidefinite, on what is not assumed
            pruned; or the groups do not fit the pools, or have an entry of which something is assumed.
    """
    if not piece.refit or piece.b.shape[::2] != (1, 1):
        raise Unfit("has blocks, but is not of a lone joint row")
    n, pool = piece.n, np.repeat(np.arange(len(piece.sizes)), piece.sizes)
    root = np.zeros(n, np.int8) if root is None else root
    if (np.abs(root) > 1).any():
        raise Unfit("assumes a fixing that is none")
    alive = root >= 0
    d = np.where(alive, d, 0.0)
    if not (np.isfinite(d).all() and np.isfinite(cross).all()):
        raise Unfit("holds a number that is not finite")
    i, j = pairs.T
    if ((i < 0) | (i >= j) | (j >= n)).any() or len(np.unique(i * n + j)) < len(pairs):
        raise Unfit("has blocks with an entry that is out of place")
    if len(pairs) > n * (LARGEST - 1) // 2:
        raise Unfit(f"has blocks of more than {LARGEST} entries")
    if (pool[i] != pool[j]).any():
        raise Unfit("has a block across pools")
    if root[i].any() or root[j].any():
        raise Unfit("has a block with an entry that it assumes fixed")
    D = np.diag(d)
    D[i, j] = D[j, i] = cross
    grouped = []
    groups = [group for group in _components(n, pairs) if alive[group[0]]]
    for size in sorted({len(group) for group in groups}):
        if size > LARGEST:
            raise Unfit(f"has a block of {size} entries, more than {LARGEST}")
        members = np.array([group for group in groups if len(group) == size])
        blocks = D[members[:, :, None], members[:, None, :]]
        grouped.append(Grouped(members, blocks, _least(blocks)))
    at = np.ix_(alive, alive)
    R = piece.H[0][at] - D[at]
    if len(R) and (reason := semidefinite(R, up(SAFE * (piece.H_error[0][at] + UNIT * np.abs(R))))):
        raise Unfit(f"leaves a remainder not shown to be positive semidefinite: {reason}")
    return grouped, D


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
    """`[B, s]` positive numbers with `D - diag(least)` positive semidefinite, for blocks `D [B, s, s]`.

    Scaled by powers of two to a diagonal near one, half of the smallest eigenvalue found is taken.

    Raises:
        Unfit: if a block is not shown to be positive definite.
    """
    diagonal = np.diagonal(D, axis1=1, axis2=2)
    if not (diagonal > 0).all():
        raise Unfit("has a block that is not positive definite")
    if D.shape[1] == 1:
        return np.array(diagonal)
    power = np.rint(0.5 * np.log2(diagonal)).astype(np.int32)
    scaled = np.ldexp(D, -(power[:, :, None] + power[:, None, :]))
    if not (np.abs(scaled) < 4.0).all():
        raise Unfit("has a block that is not positive definite")
    low = np.linalg.eigvalsh(scaled)[:, 0]
    least = np.ldexp(0.5 * low[:, None], 2 * power)
    shown = (least > 0).all(axis=1) & (low > CLEAR)
    shown[shown] = _clear(scaled[shown], np.ldexp(least[shown], -2 * power[shown]))
    for b in np.flatnonzero(~shown).tolist():
        for share in (0.5, 0.125):
            least[b] = np.ldexp(share * low[b], 2 * power[b])
            if (least[b] > 0).all() and _definite(D[b], least[b]):
                break
        else:
            raise Unfit("has a block that is not positive definite")
    return least


def _clear(D: Array, least: Array) -> NDArray[np.bool_]:
    """`[B]` of which blocks floating point shows that `D - diag(least)` is positive semidefinite.

    As `solvers.checker.semidefinite.semidefinite` does, for many matrices of a few entries below 4.
    """
    size = D.shape[1]
    at = np.arange(size)
    A = D.copy()
    A[:, at, at] -= least
    B = A.copy()
    B[:, at, at] -= 0.25 * CLEAR
    try:
        L = np.linalg.cholesky(B)
    except np.linalg.LinAlgError:
        return np.zeros(len(D), dtype=bool)
    across = np.swapaxes(L, 1, 2)
    F = A - L @ across
    error = sum_error(size, np.abs(L) @ np.abs(across))
    error = SAFE * (error + UNIT * (np.abs(F) + np.abs(A))) + 2.0**-1000
    lowest = F[:, at, at] - error[:, at, at]
    whole = np.abs(F) + error
    whole[:, at, at] = 0.0
    return np.asarray((lowest >= up(SAFE * whole.sum(axis=2))).all(axis=1))


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
