"""Lower bounds at the leaves of a tree, evaluated with outward rounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.checker.piece import Piece
from solvers.checker.rounding import SAFE, TINY, UNIT, Array, dot, down, product, sum_error, up
from solvers.checker.tree import KEPT, PRUNED

CHUNK = 1 << 20
"""Numbers in an array of one batch."""


def points(piece: Piece, d: Array, u: NDArray[np.floating]) -> tuple[Array, Array]:
    """What a bound needs of each vector u, before any fixing is known.

    With `H = R + diag(d)`, `1/2 v'Rv >= u'Rv - 1/2 u'Ru` for every u, as R is positive semidefinite; what is
    left is a sum over entries. With `y = H u - d u`:

        joint      base = constant - 1/2 u.y,  score_i = (b_i - y_i)^2 / (2 d_i), subtracted where kept
        selection  base = constant - 1/2 u.y,  score_i = y_i + d_i / 2 - b_i, added where pruned

    Args:
        piece: the decisions.
        d: `[g, n]` split.
        u: `[V, g, n, c]`.

    Returns:
        `base [V]`, never above the exact number, and `score [V, n]`, never below it (joint) or above it.
        Where a score overflows, the base is minus infinity.
    """
    count, g, n, c = u.shape
    base = np.full(count, piece.constant)
    score = np.zeros((count, n))
    for i in range(g):
        flat = np.ascontiguousarray(u[:, i].transpose(1, 0, 2), dtype=np.float64).reshape(n, count * c)
        P, error = product(piece.H[i], flat)
        if piece.H_error[i].any():
            error = up(error + SAFE * (piece.H_error[i] @ np.abs(flat)) + n * TINY)
        move = d[i][:, None] * flat
        y = P - move
        error = up(SAFE * (error + UNIT * (np.abs(move) + np.abs(y))) + TINY)
        y, error = y.reshape(n, count, c), error.reshape(n, count, c)
        bend, bend_error = dot(flat.reshape(n, count, c), y, error, (0, 2))
        base = down(base - 0.5 * up(bend + bend_error))
        if piece.refit:
            q = piece.b[i][:, None, :] - y
            slack = up(SAFE * (error + piece.b_error[i][:, None, :] + UNIT * np.abs(q)))
            size = up(up(np.abs(q) + slack) / down(np.sqrt(2.0 * d[i]))[:, None, None])
            squares = up(size * size)
            score = up(score + up(squares.sum(axis=2) * (1.0 + c * UNIT * SAFE * SAFE)).T)
        else:
            linear = 0.5 * d[i] - piece.b[i, :, 0]
            t = y[:, :, 0] + linear[:, None]
            fixed = (piece.b_error[i, :, 0] + UNIT * np.abs(linear) + TINY)[:, None]
            score = down(t - up(SAFE * (error[:, :, 0] + fixed + UNIT * np.abs(t)))).T
    return np.where(np.isfinite(score).all(axis=1), base, -np.inf), score


def bounds(piece: Piece, base: Array, score: Array, fixings: NDArray[np.int8]) -> Array:
    """`[leaves]` lower bounds of leaves, given their points' `base` and `score` and what they fix.

    Infinite where the fixings leave no mask. The budget takes so many entries of each pool: those fixed,
    then the best of the free ones. A selection that prunes nothing costs the constant.
    """
    pools = len(piece.prune)
    taken, count = (KEPT, piece.keep) if piece.refit else (PRUNED, piece.prune)
    chosen = (fixings == taken).reshape(len(fixings), pools, piece.n // pools)
    free = (fixings == 0).reshape(chosen.shape)
    left = count - chosen.sum(axis=2)
    possible = ((left >= 0) & (left <= free.sum(axis=2))).all(axis=1)
    values = score.reshape(chosen.shape)
    worst = -np.inf if piece.refit else np.inf
    ranked = np.sort(np.where(free, values, worst), axis=2)
    rank = np.arange(ranked.shape[2])
    best = rank >= len(rank) - left[:, :, None] if piece.refit else rank < left[:, :, None]
    fixed = np.where(chosen, values, 0.0).reshape(len(base), piece.n)
    best_free = np.where(best & possible[:, None, None], ranked, 0.0).reshape(len(base), piece.n)
    low = _total(piece, base, fixed, best_free)
    if not piece.refit and not piece.prune.any():
        low = np.maximum(low, piece.constant)
    return np.where(possible, low, np.inf)


def curve(piece: Piece, base: float, score: Array) -> Array:
    """`[n + 1]` lower bounds at one point without fixings, for every pruned count of a single pool."""
    n = piece.n
    ranked = np.sort(score)[::-1] if piece.refit else np.sort(score)
    chosen = np.tri(n + 1, n, -1) * ranked
    low = _total(piece, np.full(n + 1, base), chosen)
    if piece.refit:
        return low[::-1]
    low[0] = max(low[0], piece.constant)
    return low


def _total(piece: Piece, base: Array, *chosen: Array) -> Array:
    """`base` less (joint) or plus the sum of the chosen scores, rounded down, and not below the floor."""
    total = sum(part.sum(axis=1) for part in chosen)
    size = total if piece.refit else sum(np.abs(part).sum(axis=1) for part in chosen)
    error = sum_error(2 * piece.n, size)
    low = down(base - up(total + error)) if piece.refit else down(base + down(total - error))
    return np.asarray(np.maximum(low, piece.floor))
