"""Lower bounds at the leaves of a tree, evaluated with outward rounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.checker.piece import Piece
from solvers.checker.rounding import SAFE, TINY, UNIT, Array, dot, down, product, sum_error, up
from solvers.checker.tree import KEPT, PRUNED

CHUNK = 1 << 20
"""Numbers in an array of one batch."""


def points(
    piece: Piece, d: Array, root: NDArray[np.int8], split: NDArray[np.int64], u: NDArray[np.floating]
) -> tuple[Array, Array]:
    """What a bound needs of each vector u, before any fixing is known but those that its split assumes.

    With `R = H - diag(d)`, `1/2 v'Rv >= u'Rv - 1/2 u'Ru` for every u, as R is positive semidefinite where u
    and v are not zero; what is left is a sum over entries. With `y = R u`:

        joint      base = constant - 1/2 u.y,  score_i = (b_i - y_i)^2 / (2 d_i), subtracted where kept
        selection  base = constant - 1/2 u.y,  score_i = y_i + d_i / 2 - b_i, added where pruned

    Joint: u is zero on entries assumed pruned, and is completed on those assumed kept. Selection: u is
    zero on entries assumed fixed; with P those assumed pruned, `b` becomes `b - H 1_P`, the constant
    grows by `1/2 1_P'H 1_P - b'1_P`, and the scores of what is assumed are zero.

    Args:
        piece: the decisions.
        d: `[Q, g, n]` splits.
        root: `[Q, n]` what they assume.
        split: `[V]` the split of each vector.
        u: `[V, g, n, c]`.

    Returns:
        `base [V]`, never above the exact number, and `score [V, n]`, never below it (joint) or above it.
        Where a score overflows, the base is minus infinity.
    """
    assumed = root[split]
    point: Array = np.where((assumed == 0)[:, None, :, None], u, 0.0).astype(np.float64)
    if piece.refit:
        complete(piece, root, split, point)
        base, score = _joint(piece, np.where((assumed >= 0)[:, None], d[split], 1.0), point)
    else:
        base, score = _selection(piece, np.where(assumed == 0, d[split, 0], 0.0), assumed < 0, point)
        score = np.where(assumed == 0, score, 0.0)
    return np.where(np.isfinite(score).all(axis=1), base, -np.inf), score


def complete(piece: Piece, root: NDArray[np.int8], split: NDArray[np.int64], u: Array) -> None:
    """Fill in `u_K = H_KK^-1 (b_K - H_KF u_F)`, best for d near 0, in floating point: any u is valid."""
    for q in np.unique(split):
        kept = np.flatnonzero(root[q] > 0)
        mine = np.flatnonzero(split == q)
        for g in range(len(piece.H)) if len(kept) else ():
            side = piece.b[g][kept][None] - piece.H[g][kept] @ u[mine, g]
            flat = side.transpose(1, 0, 2).reshape(len(kept), -1)
            try:
                found = np.linalg.solve(piece.H[g][np.ix_(kept, kept)], flat)
            except np.linalg.LinAlgError:
                continue
            u[mine[:, None], g, kept] = found.reshape(len(kept), len(mine), -1).transpose(1, 0, 2)


def _joint(piece: Piece, d: Array, u: Array) -> tuple[Array, Array]:
    count, g, n, c = u.shape
    base, score = np.full(count, piece.constant), np.zeros((count, n))
    for i in range(g):
        y, error, bend = _image(piece, i, d[:, i], u[:, i])
        base = down(base - 0.5 * bend)
        q = piece.b[i][:, None, :] - y
        slack = up(SAFE * (error + piece.b_error[i][:, None, :] + UNIT * np.abs(q)))
        size = up(up(np.abs(q) + slack) / down(np.sqrt(2.0 * d[:, i].T))[:, :, None])
        squares = up(size * size)
        score = up(score + up(squares.sum(axis=2) * (1.0 + c * UNIT * SAFE * SAFE)).T)
    return base, score


def _selection(piece: Piece, d: Array, ones: NDArray[np.bool_], u: Array) -> tuple[Array, Array]:
    y, error, bend = _image(piece, 0, d, u[:, 0])
    y, error, b, b_error = y[:, :, 0], error[:, :, 0], piece.b[0], piece.b_error[0]
    P = ones.T.astype(np.float64)
    pull, pull_error = _times(piece, 0, P)
    fixed = 0.5 * pull - b
    fixed_error = up(SAFE * (pull_error + b_error + UNIT * np.abs(fixed)))
    gain, gain_error = dot(P, fixed, fixed_error, (0,))
    base = down(down(piece.constant + down(gain - gain_error)) - 0.5 * bend)
    linear = pull - b
    half = 0.5 * d.T + linear
    t = y + half
    slack = pull_error + b_error + UNIT * (np.abs(linear) + np.abs(half) + np.abs(t)) + TINY
    return base, down(t - up(SAFE * (error + slack))).T


def _image(piece: Piece, i: int, d: Array, u: Array) -> tuple[Array, Array, Array]:
    """`y = (H_i - diag(d)) u` and its error, `[n, V, c]`, and `[V]` from above `u.y`; d is `[V, n]`."""
    count, n, c = u.shape
    point = np.ascontiguousarray(u.transpose(1, 0, 2))
    flat = point.reshape(n, count * c)
    P, error = _times(piece, i, flat)
    move = (d.T[:, :, None] * point).reshape(n, count * c)
    y = P - move
    error = up(SAFE * (error + UNIT * (np.abs(move) + np.abs(y))) + TINY)
    y, error = y.reshape(point.shape), error.reshape(point.shape)
    bend, bend_error = dot(point, y, error, (0, 2))
    return y, error, up(bend + bend_error)


def _times(piece: Piece, i: int, flat: Array) -> tuple[Array, Array]:
    """`H_i flat` and its error, that of H included."""
    P, error = product(piece.H[i], flat)
    if piece.H_error[i].any():
        error = up(error + SAFE * (piece.H_error[i] @ np.abs(flat)) + len(P) * TINY)
    return P, error


def bounds(piece: Piece, base: Array, score: Array, fixings: NDArray[np.int8]) -> Array:
    """`[leaves]` lower bounds of leaves, given their points' `base` and `score` and what they fix.

    Infinite where the fixings leave no mask. The budget takes so many entries of each pool: those fixed,
    then the best of the free ones. A selection that prunes nothing costs the constant.
    """
    taken, count = (KEPT, piece.keep) if piece.refit else (PRUNED, piece.prune)
    places, none = piece.places, np.zeros((len(base), 1))
    fixings = np.concatenate([fixings, none + 2], axis=1)[:, places]  # neither free nor fixed
    chosen, free = fixings == taken, fixings == 0
    left = count - chosen.sum(axis=2)
    possible = ((left >= 0) & (left <= free.sum(axis=2))).all(axis=1)
    values = np.concatenate([score, none], axis=1)[:, places]
    worst = -np.inf if piece.refit else np.inf
    ranked = np.sort(np.where(free, values, worst), axis=2)
    rank = np.arange(ranked.shape[2])
    best = rank >= len(rank) - left[:, :, None] if piece.refit else rank < left[:, :, None]
    fixed = np.where(chosen, values, 0.0).reshape(len(base), places.size)
    best_free = np.where(best & possible[:, None, None], ranked, 0.0).reshape(len(base), places.size)
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
