"""Curvatures that are a factor and damping, not formed: what points of its image prove, what masks cost.

With `H = X'X / N + c I`, `1/(2N) |X D|^2 >= v.X D - N/2 |v|^2` for any `v [N]`. With `a = X'v + g` what is
left of the cost of a row's move D is separable,

    g.D + 1/2 D'HD >= -N/2 |v|^2 + sum_i (a_i D_i + c/2 D_i^2)

where a pruned entry has `D = -w`, a survivor of a selection 0, and any other at least `-a_i^2 / (2c)`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from solvers.checker.problem import Problem
from solvers.checker.rounding import SAFE, TINY, UNIT, Array, down, product, sum_error, up

CHUNK = 1 << 22
"""Numbers of the factor that are looked at together."""
REFINEMENTS = 2


def image_bound(problem: Problem, v: Array) -> float:
    """What no mask of a problem's budget costs less than, rounded down.

    Args:
        problem: with a factor, and damping >= 0; > 0 where entries may move, else there is no bound.
        v: `[m, N]`, a point of every row.
    """
    X, W, c = _factor(problem), problem.weights, problem.damping
    if not c >= 0:
        return -np.inf
    moves = np.zeros(W.shape, dtype=bool)
    moves[:, problem.movable] = True
    a, error = _pulls(X, v)
    if problem.gradient is not None:
        a = a + problem.gradient
        error = up(SAFE * (error + UNIT * np.abs(a)))
    base = -up(0.5 * len(X) * _squares(v))
    if problem.refit or moves.any():
        if not c > 0:
            return -np.inf
        size = up(up(np.abs(a) + error) / down(np.sqrt(2.0 * c)))
        free = up(size * size)
        base = down(base - _sum(free if problem.refit else free[moves]))
    p = problem.prunable
    a, error, w = a[:, p], error[:, p], W[:, p]
    bent = c * w
    if problem.refit:
        rest = np.abs(a - bent)
        rest = np.maximum(down(rest - up(SAFE * (error + UNIT * (np.abs(bent) + rest)) + 2 * TINY)), 0.0)
        root = down(rest / up(np.sqrt(2.0 * c)))
        scores = np.maximum(down(root * root), 0.0)
    else:
        inner = 0.5 * bent - a
        slack = error + UNIT * (2.0 * np.abs(bent) + np.abs(inner)) + 2 * TINY
        scores = w * inner
        scores = down(scores - up(SAFE * (np.abs(w) * slack + UNIT * np.abs(scores)) + TINY))
    least = _least(problem, scores)
    low = float(down(base + down(least.sum() - sum_error(least.size + 1, np.abs(least).sum()))))
    if problem.gradient is None and low < 0.0:
        return 0.0  # the curvature is a Gram matrix and a damping that is not negative
    return low if np.isfinite(low) else -np.inf


def image_values(problem: Problem, mask: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    """`[m]` lower and upper ends of every row's cost, and the size of the terms that it sums.

    Any move D of the entries S that may move costs at least the optimum, and at most `sum r_i^2 / (2c)`
    more, for the residual `r = (H D + g)_S`. D comes from floating point, and is refined.

    Args:
        problem: with a factor; damping > 0 where entries move.
        mask: `[m, n]`, True where pruned.
    """
    X, c, N = _factor(problem), problem.damping, len(_factor(problem))
    G = np.zeros(mask.shape) if problem.gradient is None else problem.gradient
    moves = ~mask if problem.refit else np.zeros(mask.shape, dtype=bool)
    moves[:, problem.movable] = True
    if moves.any() and not c > 0:
        return np.full(len(mask), -np.inf), np.full(len(mask), np.inf), np.full(len(mask), np.inf)
    D = np.where(mask, -problem.weights, 0.0)
    for r in range(len(D)):
        _move(X, c, D[r], G[r], np.flatnonzero(moves[r]))
    z, z_error = _products(X, D)
    high = up(_squares(up(np.abs(z) + z_error), 1) / (2.0 * N))
    low = down(_squares(np.maximum(down(np.abs(z) - z_error), 0.0), 1) / (2.0 * N))
    low = down(low * (1.0 - 4.0 * N * UNIT))
    bent = 0.5 * c * D
    terms = D * (G + bent)
    slack = SAFE * UNIT * (np.abs(D) * (3.0 * np.abs(bent) + 2.0 * np.abs(G)) + np.abs(terms)) + 4 * TINY
    total = terms.sum(axis=1)
    size = np.abs(terms).sum(axis=1) + high
    error = up(sum_error(D.shape[1], np.abs(terms).sum(axis=1)) + SAFE * up(slack.sum(axis=1)))
    low, high = down(down(low + total) - error), up(up(high + total) + error)
    pull, pull_error = _pulls(X, z / N, up(SAFE * (z_error / N + UNIT * np.abs(z) / N) + TINY))
    residual = pull + c * D + G
    slack = (
        pull_error + UNIT * (3.0 * np.abs(c * D) + np.abs(pull) + 2.0 * np.abs(G) + np.abs(residual)) + TINY
    )
    rest = np.where(moves, up(np.abs(residual) + up(SAFE * slack)), 0.0)
    if moves.any():
        low = down(low - up(_squares(rest, 1) / (2.0 * c)))
    return low, high, size


def _factor(problem: Problem) -> Array:
    assert problem.factor is not None
    return problem.factor


def _least(problem: Problem, scores: Array) -> Array:
    """The scores of what the budget prunes cheapest, of rows together where a mask is shared."""
    if problem.kind == "per_layer":
        return np.sort(scores.ravel())[: int(problem.counts[0])]
    sizes, prune = problem.pools()
    if problem.shared:
        if problem.labels is not None:
            raise ValueError("no bound in an image is known of groups that all rows share")
        total = scores.sum(axis=0)
        total = down(total - sum_error(len(scores) + 1, np.abs(scores).sum(axis=0)))
        return np.asarray(np.sort(total)[: int(problem.counts[0])])
    parts = np.split(scores, np.cumsum(sizes)[:-1], axis=1)
    ranked = np.concatenate([np.sort(part, axis=1) for part in parts], axis=1)
    rank = np.concatenate([np.arange(size) for size in sizes.tolist()])
    return np.asarray(ranked[rank < np.repeat(prune, sizes, axis=1)])


def _move(X: Array, c: float, d: Array, g: Array, S: NDArray[np.int64]) -> None:
    """`d_S` that is about best, in place: by Woodbury's identity where S is larger than N; any is valid."""
    if not len(S):
        return
    N, Xs = len(X), X[:, S]
    small = Xs @ Xs.T / N if len(S) > N else Xs.T @ Xs / N
    small[np.diag_indices(len(small))] += c
    try:
        inverse = np.linalg.inv(small)
    except np.linalg.LinAlgError:
        return
    for _ in range(1 + REFINEMENTS):
        r = -(X @ d @ Xs / N + c * d[S] + g[S])
        d[S] += (r - inverse @ (Xs @ r) @ Xs / N) / c if len(S) > N else inverse @ r


def _pulls(X: Array, v: Array, v_error: Array | None = None) -> tuple[Array, Array]:
    """`v X`: `[m, n]` from `[m, N]`, and how far it may be off for any v within its error."""
    out, error = np.empty((len(v), X.shape[1])), np.empty((len(v), X.shape[1]))
    for part in _parts(X.shape[1], len(X)):
        P, slack = product(X[:, part].T, v.T)
        if v_error is not None:
            slack = up(slack + SAFE * (np.abs(X[:, part]).T @ v_error.T) + len(X) * TINY)
        out[:, part], error[:, part] = P.T, slack.T
    return out, error


def _products(X: Array, D: Array) -> tuple[Array, Array]:
    """`D X'`: `[m, N]` from `[m, n]`, and how far it may be off."""
    out, error = np.empty((len(D), len(X))), np.empty((len(D), len(X)))
    for part in _parts(len(X), X.shape[1]):
        P, slack = product(X[part], D.T)
        out[:, part], error[:, part] = P.T, slack.T
    return out, error


def _squares(x: Array, axis: int | None = None) -> Array:
    """From above the sum of squares, of everything or along an axis."""
    squares = x * x
    count = x.size if axis is None else x.shape[axis]
    total = squares.sum(axis=axis)
    return np.asarray(up(total + sum_error(count, total)))


def _sum(x: Array) -> Array:
    """From above the sum of numbers that are not negative."""
    total = x.sum()
    return np.asarray(up(total + sum_error(x.size, total)))


def _parts(count: int, width: int) -> Iterator[slice]:
    step = max(1, CHUNK // max(width, 1))
    for start in range(0, count, step):
        yield slice(start, start + step)
