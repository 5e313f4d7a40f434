"""What the states of rows with one mask and one curvature add up to: their Gram matrix, compiled."""

from __future__ import annotations

from numba import njit

from solvers.runtime.compiled import FLAGS


@njit(cache=True, nogil=True, fastmath=FLAGS)
def turn(K, line, p, i, sign):  # type: ignore[no-untyped-def]
    """A move of entry i by every row's y: `Y <- Y - line Y_i / p`, then `Y_i <- sign Y_i / p`, in `K = Y Y'`.

    Returns:
        The change of cost, `sum Y_i^2 / (2 p)`.

    Args:
        K: `[n, n]`, changed in place.
        line: `[n]`.
        p: pivot.
        i: the entry.
        sign: 1 if it is pruned, -1 if it comes back.
    """
    n = len(K)
    own = K[i].copy()
    whole = own[i]
    for a in range(n):
        share = line[a] / p
        rest = (own[a] - share * whole) / p
        for b in range(n):
            K[a, b] -= share * own[b] + rest * line[b]
    for k in range(n):
        K[i, k] = K[k, i] = sign * (own[k] - line[k] * whole / p) / p
    K[i, i] = whole / p / p
    return 0.5 * whole / p


@njit(cache=True, nogil=True)
def gather(row, T):  # type: ignore[no-untyped-def]
    """K and the cost afresh, from the map T `[n, n]` that takes all weights to all y."""
    part = T @ row.gram
    row.K[:] = part @ T.T
    total = 0.0
    for k in range(len(T)):
        if row.pruned[k]:
            total += 0.5 * part[k, k]
    row.cost[0] = total


@njit(cache=True, nogil=True, fastmath=FLAGS)
def betters(line, pulls, now, scale, inverse, norms, room):  # type: ignore[no-untyped-def]
    """Swaps with one survivor that change the cost by less than `room` would have it."""
    count = 0
    for k in range(len(line)):
        f = line[k] * inverse[k]
        top = now + f * (2.0 * pulls[k] + f * norms[k])
        count += 0.5 * top < room[k] * (scale + line[k] * f)
    return count
