"""Bounds of splits in blocks, at their points and prices, by all states of every group; rounded outward.

With `R = H - D`, `q = b - R u`, any price t of keeping an entry of a pool, and what a leaf fixes,

    LB = constant - 1/2 u'Ru - sum_pool t keep - sum_B max_{S in B} (1/2 q_S' (D_SS)^-1 q_S - t |S|)

over the sets S of a block's entries that hold all of those kept and none of those pruned. The scores of all
sets are found once a point; a leaf only leaves some of them out. Of pools that are whole in a block only the
sets that meet their budgets count: as these hold equally many entries, any price of theirs cancels, and is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from solvers.checker.grouped import Grouped
from solvers.checker.piece import Piece
from solvers.checker.rounding import SAFE, TINY, UNIT, Array, dot, down, product, sum_error, up
from solvers.checker.tree import KEPT, PRUNED

CHUNK = 1 << 18
"""Numbers in an array of one batch."""


def grouped_bounds(
    piece: Piece,
    grouped: Sequence[Grouped],
    D: Array,
    u: Array,
    price: Array,
    at: NDArray[np.int64],
    fixings: NDArray[np.int8],
    keep: NDArray[np.int64],
) -> Array:
    """`[L]` lower bounds of leaves that have one split; infinite where the fixings leave no mask.

    Args:
        piece: the decisions.
        grouped: verified groups (`solvers.checker.grouped.groups_of`).
        D: `[n, n]`.
        u: `[V, n]` points, zero on what the split assumes pruned.
        price: `[V, pools]`.
        at: `[L]` which of the points a leaf has.
        fixings: `[L, n]`, with all that the split assumes.
        keep: `[L, pools]` or `[1, pools]` decisions to keep; the piece's own where groups are of whole pools.
    """
    found = np.full(len(at), np.inf)
    fixings, possible = _forced(piece, fixings, keep)
    keep = np.broadcast_to(keep, (len(at), keep.shape[1]))[possible]
    at, fixings = at[possible], fixings[possible]
    base, q, slack = _residuals(piece, grouped, D, u)
    pool = np.repeat(np.arange(len(piece.sizes)), piece.sizes)
    price = price.copy()
    for group in grouped:
        if group.whole:
            price[:, pool[group.members]] = 0.0
    dues = up(price[at] * keep)
    total, size = dues.sum(axis=1), np.abs(dues).sum(axis=1)
    terms = dues.shape[1]
    for group in grouped:
        members = group.members
        score = scores(group, q[:, members], slack[:, members], price[:, pool[members[:, 0]]])
        best = _best(group, score, at, fixings)
        total, size = total + best.sum(axis=1), size + np.abs(best).sum(axis=1)
        terms += len(members)
    low = down(base[at] - up(total + sum_error(2 * terms, size)))
    found[possible] = np.where(np.isfinite(low), np.maximum(low, piece.floor), -np.inf)
    return found


def scores(group: Grouped, q: Array, slack: Array, price: Array) -> Array:
    """`[V, B, K]` from above the score of every state, for every q within its slack.

    For any w, with `r = q_S - D_SS w`,

        q_S' D_SS^-1 q_S = w'(q_S + r) + r' D_SS^-1 r

    and the last term is at most `sum r_i^2 / least_i`. The norm in `D_SS^-1` of what q is off adds to that
    of q. Sums have at most `WIDEST` terms.

    Args:
        group: groups of one size and states.
        q: `[V, B, s]`.
        slack: `[V, B, s]`.
        price: `[V, B]`.
    """
    step = max(1, CHUNK // (group.members.size * len(group.states)))
    parts = [slice(i, i + step) for i in range(0, len(q), step)]
    return np.concatenate([_scores(group, q[i], slack[i], price[i]) for i in parts])


def _scores(group: Grouped, q: Array, slack: Array, price: Array) -> Array:
    size, inside, own = group.members.shape[1], group.states, q[:, :, None]
    w = _solved(group, np.broadcast_to(own, (*q.shape[:2], *inside.shape)))
    w = w + _solved(group, np.where(inside, own - w @ group.D, 0.0))
    w = np.where(inside, w, 0.0)
    r = own - w @ group.D
    r_error = sum_error(size + 1, np.abs(w) @ np.abs(group.D)) + SAFE * UNIT * (np.abs(own) + np.abs(r))
    both = own + r
    main, main_error = dot(w, both, up(SAFE * (r_error + UNIT * np.abs(both))), (3,))
    rest = _norm(np.where(inside, np.abs(r) + r_error, 0.0), group.least[:, None])
    square = np.maximum(up(up(main + main_error) + up(rest * rest)), 0.0)
    off = _norm(np.where(inside, slack[:, :, None], 0.0), group.least[:, None])
    whole = up(up(np.sqrt(square)) + off)
    score = up(up(0.5 * up(whole * whole)) - down(inside.sum(axis=1) * price[:, :, None]))
    score[:, :, ~inside.any(axis=1)] = 0.0
    return np.where(np.isnan(score), np.inf, score)


def _solved(group: Grouped, right: Array) -> Array:
    """`[V, B, K, s]` about `(D_SS)^-1` times right-hand sides of that shape."""
    return np.asarray((group.inverse @ right[..., None])[..., 0])


def _norm(x: Array, least: Array) -> Array:
    """From above `(sum x_i^2 / least_i)^1/2` over the last axis, for x not negative."""
    parts = up(up(SAFE * x) / down(np.sqrt(least)))
    squares = up(parts * parts)
    return np.asarray(up(np.sqrt(up(SAFE * squares.sum(axis=-1)))))


def _best(group: Grouped, score: Array, at: NDArray[np.int64], fixings: NDArray[np.int8]) -> Array:
    """`[L, B]` the best state of every group among those that a leaf allows."""
    number = 1 << np.arange(group.members.shape[1])
    states = group.states @ number
    best = score.max(axis=2)[at]
    kept, pruned = ((fixings[:, group.members] == mark) @ number for mark in (KEPT, PRUNED))
    leaf, place = np.nonzero(kept + pruned)
    step = max(1, CHUNK // len(states))
    for i in range(0, len(leaf), step):
        some, which = leaf[i : i + step], place[i : i + step]
        fixed = (kept + pruned)[some, which]
        allowed = states & fixed[:, None] == kept[some, which][:, None]
        best[some, which] = np.where(allowed, score[at[some], which], -np.inf).max(axis=1)
    return np.asarray(best)


def _residuals(piece: Piece, grouped: Sequence[Grouped], D: Array, u: Array) -> tuple[Array, Array, Array]:
    """`[V]` from below `constant - 1/2 u'Ru`, and `[V, n]` q and how far it may be off."""
    point = np.ascontiguousarray(u.T)
    Hu, error = product(piece.H[0], point)
    Du, size = D @ point, np.abs(D) @ np.abs(point)
    widest = max((group.members.shape[1] for group in grouped), default=1)
    y = Hu - Du
    error = error + sum_error(widest, size) + SAFE * (piece.H_error[0] @ np.abs(point)) + piece.n * TINY
    error = up(SAFE * (error + UNIT * np.abs(y)))
    bend, bend_error = dot(point, y, error, (0,))
    base = down(piece.constant - 0.5 * up(bend + bend_error))
    q = piece.b[0] - y
    slack = up(SAFE * (error + piece.b_error[0] + UNIT * np.abs(q)))
    return base, q.T, slack.T


def _forced(
    piece: Piece, fixings: NDArray[np.int8], keep: NDArray[np.int64]
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """Fixings with those that the budget then leaves no choice of, and which of them leave a mask at all."""
    fixings = fixings.copy()
    possible = np.ones(len(fixings), dtype=bool)
    ends = np.cumsum(piece.sizes)
    for first, end, wanted in zip((ends - piece.sizes).tolist(), ends.tolist(), keep.T, strict=True):
        part = fixings[:, first:end]
        left, free = wanted - (part == KEPT).sum(axis=1), (part == 0).sum(axis=1)
        possible &= (left >= 0) & (left <= free)
        part[(part == 0) & (left <= 0)[:, None]] = PRUNED
        part[(part == 0) & (left >= free)[:, None]] = KEPT
    return fixings, possible
