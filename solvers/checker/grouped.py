"""Splits whose D has blocks of a few entries: that D is definite, block by block, and what it leaves of H.

A block within a pool may keep any of its entries, and D has to be definite on all of them. One that holds all
that is left of some pools keeps what their budgets say, and D has to be definite on each of these sets only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from math import comb, prod

import numpy as np
from numpy.typing import NDArray

from solvers.checker.piece import Piece
from solvers.checker.rounding import SAFE, UNIT, Array, sum_error, up
from solvers.checker.semidefinite import semidefinite

LARGEST = 8
"""Entries of a group that is part of a pool: its `2^s` states are all looked at."""
WIDEST, STATES = 16, 256
"""Entries and states of a group of whole pools, at most."""
CLEAR = 2.0**-40
"""Eigenvalues of a block, scaled to a diagonal near one, that floating point can tell from zero."""


Pattern = tuple[tuple[int, int], ...]
"""Of every pool of some, how many entries, and how many of these to keep."""


class Unfit(Exception):
    """Groups that prove nothing; the message says why, to follow the words "the split of a row"."""


@dataclass(frozen=True)
class Grouped:
    """Groups of one size s that have the same K states.

    Attributes:
        members: `[B, s]` entries.
        D: `[B, s, s]` blocks.
        least: `[B, s]`, positive, with `D - diag(least)` positive semidefinite on every state.
        states: `[K, s]` the sets of entries that may be kept: all of them, numbered by their bits, or those
            that meet the budgets of the pools that the groups are made of.
    """

    members: NDArray[np.int64]
    D: Array
    least: Array
    states: NDArray[np.bool_]

    @property
    def whole(self) -> bool:
        """Whether the groups are made of whole pools."""
        return len(self.states) < 1 << int(self.members.shape[1])

    @cached_property
    def inverse(self) -> Array:
        """`[B, K, s, s]` about `(D_SS)^-1` of every state S; zero outside S.

        In floating point, of all sets by bordering: nothing is taken for granted of it.
        """
        count, size = self.members.shape
        out = np.zeros((count, len(self.states), size, size))
        if self.whole:
            at = _places(self.states)
            rows, columns = at[:, :, None], at[:, None, :]
            out[:, np.arange(len(at))[:, None, None], rows, columns] = np.linalg.inv(self.D[:, rows, columns])
            return out
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
    *,
    whole: bool = False,
) -> tuple[Sequence[Grouped], Array]:
    """The groups that off-diagonal entries connect, verified to be a split.

    Args:
        piece: joint, with one curvature and one right-hand side.
        d: `[n]` diagonal of D.
        pairs: `[E, 2]` places of its other entries, the lower index first.
        cross: `[E]` these entries.
        root: `[n]` the fixings that it assumes: 1 kept, -1 pruned, 0 free. None is zeros.
        whole: whether groups of whole pools keep no more than what the piece's budget says. If not, D is
            positive definite, whatever the budget.

    Returns:
        The groups of what is not assumed pruned, by size and states, and D `[n, n]`, zero on the rest.

    Raises:
        Unfit: if D is not positive definite on what its groups may keep, or `H - D` not positive semidefinite
            on what is not assumed pruned; or the groups do not fit the pools, or have an entry of which
            something is assumed.
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
    if len(pairs) > n * (WIDEST - 1) // 2:
        raise Unfit(f"has blocks of more than {WIDEST} entries")
    if root[i].any() or root[j].any():
        raise Unfit("has a block with an entry that it assumes fixed")
    D = np.diag(d)
    D[i, j] = D[j, i] = cross
    kinds: dict[tuple[int, Pattern], list[list[int]]] = {}
    left = _left(piece, root) if whole and len(piece.sizes) > 1 else ()
    for group in _components(n, pairs):
        if alive[group[0]]:
            pattern = _pattern(left, pool[group].tolist()) if left and len(group) > 1 else ()
            kinds.setdefault((len(group), pattern), []).append(group)
    grouped = []
    for (size, pattern), alike in sorted(kinds.items()):
        members = np.array(alike)
        if not pattern and (pool[members] != pool[members[:, :1]]).any():
            raise Unfit("has a block across pools")
        if size > (WIDEST if pattern else LARGEST):
            raise Unfit(f"has a block of {size} entries, more than {WIDEST if pattern else LARGEST}")
        states = kept_by(pattern) if pattern else every_state(size)
        blocks = D[members[:, :, None], members[:, None, :]]
        least = _least(blocks, _places(states if pattern else states[-1:]))
        grouped.append(Grouped(members, blocks, least, states))
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


def _left(piece: Piece, root: NDArray[np.int8]) -> Pattern:
    """Of every pool, how many entries a split assumes nothing of, and how many of these are to be kept."""
    ends = np.cumsum(piece.sizes)[:-1]
    parts = zip(np.split(root, ends), piece.keep.tolist(), strict=True)
    return tuple((int((part == 0).sum()), keep - int((part > 0).sum())) for part, keep in parts)


def _pattern(left: Pattern, pools: list[int]) -> Pattern:
    """What a group is made of, if that is all that is left of its pools, with a choice in each.

    Args:
        left: see `_left`.
        pools: of the group's entries, rising.
    """
    pattern = tuple(left[p] for p in dict.fromkeys(pools))
    whole = len(pools) == sum(size for size, _ in pattern)
    return pattern if whole and all(0 < keep < size for size, keep in pattern) else ()


@cache
def every_state(size: int) -> NDArray[np.bool_]:
    """`[2^s, s]` the entries of every set, numbered by its bits."""
    return (np.arange(1 << size)[:, None] >> np.arange(size) & 1).astype(bool)


@cache
def kept_by(pattern: Pattern) -> NDArray[np.bool_]:
    """`[K, s]` the sets of entries that whole pools may keep.

    Raises:
        Unfit: if there are too many.
    """
    if (count := prod(comb(size, keep) for size, keep in pattern)) > STATES:
        raise Unfit(f"has a block of {count} states, more than {STATES}")
    sets = every_state(sum(size for size, _ in pattern))
    ends = np.cumsum([size for size, _ in pattern])[:-1]
    parts = zip(np.split(sets, ends, axis=1), pattern, strict=True)
    return sets[np.all([part.sum(axis=1) == keep for part, (_, keep) in parts], axis=0)]


def _places(states: NDArray[np.bool_]) -> NDArray[np.int64]:
    """`[K, k]` the entries of sets that all have k of them."""
    return np.nonzero(states)[1].reshape(len(states), -1)


def _least(D: Array, sets: NDArray[np.int64]) -> Array:
    """`[B, s]` positive numbers e with `D_SS - diag(e_S)` positive semidefinite for some sets S of entries.

    Scaled by powers of two to a diagonal near one, half of the smallest eigenvalue found is taken.

    Args:
        D: `[B, s, s]` blocks.
        sets: `[K, k]` entries of every set.

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
    inside = scaled[:, sets[:, :, None], sets[:, None, :]]
    if not (np.abs(inside) < 4.0).all():
        raise Unfit("has a block that is not positive definite")
    low = np.linalg.eigvalsh(inside)[..., 0].min(axis=1)
    least: Array = np.ldexp(0.5 * low[:, None], 2 * power)
    shown = (least > 0).all(axis=1) & (low > CLEAR)
    shown[shown] = _clear(inside[shown], np.ldexp(least[shown], -2 * power[shown])[:, sets])
    for b in np.flatnonzero(~shown).tolist():
        for share in (0.5, 0.125):
            least[b] = np.ldexp(share * low[b], 2 * power[b])
            if (least[b] > 0).all() and all(_definite(D[b][np.ix_(S, S)], least[b, S]) for S in sets):
                break
        else:
            raise Unfit("has a block that is not positive definite")
    return least


def _clear(D: Array, least: Array) -> NDArray[np.bool_]:
    """`[B]` of which groups of K blocks floating point shows `D - diag(least)` positive semidefinite.

    As `solvers.checker.semidefinite.semidefinite` does, for many matrices of a few entries below 4.

    Args:
        D: `[B, K, k, k]`.
        least: `[B, K, k]`.
    """
    size = D.shape[2]
    at = np.arange(size)
    A = D.copy()
    A[..., at, at] -= least
    B = A.copy()
    B[..., at, at] -= 0.25 * CLEAR
    try:
        L = np.linalg.cholesky(B)
    except np.linalg.LinAlgError:
        return np.zeros(len(D), dtype=bool)
    across = np.swapaxes(L, 2, 3)
    F = A - L @ across
    error = sum_error(size, np.abs(L) @ np.abs(across))
    error = SAFE * (error + UNIT * (np.abs(F) + np.abs(A))) + 2.0**-1000
    lowest = F[..., at, at] - error[..., at, at]
    whole = np.abs(F) + error
    whole[..., at, at] = 0.0
    return np.asarray((lowest >= up(SAFE * whole.sum(axis=3))).all(axis=(1, 2)))


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
