"""Best 1-swaps in one row, and the descents that they make, compiled."""

from __future__ import annotations

import numpy as np

from solvers.heuristics.rows.reach import best_reached_swap
from solvers.heuristics.rows.tableau import open_row, prune, refresh, restore
from solvers.runtime.compiled import FLAGS, njit

GAIN = 1e-9
"""A swap counts when it lowers the cost by more than this, relatively."""
SWAPS = 50
"""Swaps between two fresh tableaux: rounding gathers."""
REFRESHES = 20
"""Descents that are started afresh at most: where rounding is all, they may go round."""


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _columns_betters(line, pulls, now, scale, inverse, norms, room):  # type: ignore[no-untyped-def]
    """Swaps with one survivor that change the cost by less than `room` would have it."""
    count = 0
    for k in range(len(line)):
        f = line[k] * inverse[k]
        top = now + f * (2.0 * pulls[k] + f * norms[k])
        count += 0.5 * top < room[k] * (scale + line[k] * f)
    return count


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _joint_betters(line, now, scale, ratio, inverse, room):  # type: ignore[no-untyped-def]
    count = 0
    for k in range(len(line)):
        top = now + line[k] * ratio[k]
        count += 0.5 * top * top < room[k] * (scale + line[k] * line[k] * inverse[k])
    return count


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _selection_betters(line, now, front, ratio, room):  # type: ignore[no-untyped-def]
    count = 0
    for k in range(len(line)):
        count += front - now * line[k] * ratio[k] < room[k]
    return count


@njit(cache=True, nogil=True, fastmath=FLAGS)
def best_swap(row, barred, aspiration, cutoff=np.inf):  # type: ignore[no-untyped-def]
    """The best swap within a pool: `(change, restored, pruned)`, with indices -1 where there is none.

    A survivor's line is only looked at closely if something in it beats the best so far, which is
    found without divisions.

    Args:
        row: the state.
        barred: `[n]` bool; entries that may not move,
        aspiration: unless the swap's change is below this.
        cutoff: changes that are not below this are of no interest.
    """
    if len(row.reach.order):
        return best_reached_swap(row, barred, aspiration, cutoff)
    n, columns = len(row.w), len(row.K) > 0
    room, ratio, back, inverse = row.spare[0], row.spare[1], row.spare[2], row.spare[3]
    for k in range(n):
        inverse[k], ratio[k], back[k] = 0.0, 0.0, np.inf
        if row.pruned[k]:
            if row.refit:
                inverse[k] = 1.0 / row.M[k]
                if columns:
                    ratio[k] = row.K[k, k]
                    back[k] = -0.5 * ratio[k] * inverse[k]
                else:
                    ratio[k] = row.y[k] * inverse[k]
                    back[k] = -0.5 * row.y[k] * ratio[k]
            else:
                ratio[k] = row.w[k]
                back[k] = 0.5 * row.w[k] * row.w[k] * row.H[k, k] - row.y[k] + row.c[k]
        room[k] = (min(cutoff, aspiration) if barred[k] else cutoff) - back[k] if row.pruned[k] else -np.inf
    best, come, go = cutoff, -1, -1
    for a in range(row.size[0]):
        j = row.kept[a]
        begin, end = row.first[j], row.last[j]
        if columns:
            line, now, scale = row.E[a], row.K[j, j], row.E[a, j]
            better = _columns_betters(line, row.K[j], now, scale, inverse, ratio, room)
        elif row.refit:
            line, now, scale = row.E[a], row.y[j], row.E[a, j]
            better = _joint_betters(
                line[begin:end], now, scale, ratio[begin:end], inverse[begin:end], room[begin:end]
            )
        else:
            line, now, scale = row.H[j], row.w[j], 1.0
            front = 0.5 * now * now * line[j] + row.y[j] - row.c[j]
            better = _selection_betters(line[begin:end], now, front, ratio[begin:end], room[begin:end])
        if not better:
            continue
        found = best
        for k in range(begin, end):
            if row.pruned[k]:
                if columns:
                    f = line[k] * inverse[k]
                    top = now + f * (2.0 * row.K[j, k] + f * ratio[k])
                    change = back[k] + 0.5 * top / (scale + line[k] * f)
                elif row.refit:
                    top = now + line[k] * ratio[k]
                    change = back[k] + 0.5 * top * top / (scale + line[k] * line[k] * inverse[k])
                else:
                    change = back[k] + front - now * line[k] * ratio[k]
                if change < best and (change < aspiration or not (barred[j] or barred[k])):
                    best, come, go = change, k, j
        if best < found:
            for k in range(n):
                if row.pruned[k]:
                    room[k] = (min(best, aspiration) if barred[k] else best) - back[k]
    return best, come, go


@njit(cache=True, nogil=True)
def descend(row, gain, limit):  # type: ignore[no-untyped-def]
    """Best-improvement swaps until none gains; how many were made.

    Args:
        row: the state.
        gain: smallest relative gain of a move.
        limit: moves at most; rounding gathers, so refresh after some tens.
    """
    free = np.zeros(len(row.w), np.bool_)
    moves = 0
    while moves < limit:
        _, come, go = best_swap(row, free, -np.inf, -gain * abs(row.cost[0]))
        if come < 0:
            break
        restore(row, come)
        prune(row, go)
        moves += 1
    return moves


@njit(cache=True, nogil=True)
def cheapest(row, towards):  # type: ignore[no-untyped-def]
    """The survivor whose pruning costs least (towards 1), or the pruned entry that gains most (-1)."""
    best, choice = np.inf, -1
    for k in range(len(row.w)):
        if row.pruned[k] == (towards > 0):
            continue
        change = price(row, k, towards)
        if change < best or choice < 0:
            best, choice = change, k
    return choice


@njit(cache=True, nogil=True)
def price(row, k, towards):  # type: ignore[no-untyped-def]
    """How the cost changes if entry k, a survivor, is pruned (towards 1), or comes back (-1)."""
    if not row.refit:
        return 0.5 * row.w[k] * row.w[k] * row.H[k, k] + towards * (row.y[k] - row.c[k])
    square = row.K[k, k] if len(row.K) else row.y[k] * row.y[k]
    return 0.5 * square / (row.E[row.slot[k], k] if towards > 0 else -row.M[k])


@njit(cache=True, nogil=True)
def neighbour(data, pruned, towards):  # type: ignore[no-untyped-def]
    """A good mask with one more entry pruned (towards 1), or one less (-1): the cheapest move, then swaps.

    Args:
        data: the row.
        pruned: `[n]` bool, changed in place, and returned.
        towards: see above.
    """
    row = open_row(data, pruned, len(pruned) - pruned.sum() + 2)
    move = cheapest(row, towards)
    if towards > 0:
        prune(row, move)
    else:
        restore(row, move)
    for _ in range(REFRESHES):
        refresh(row)
        if descend(row, GAIN, SWAPS) < SWAPS:
            break
    return pruned
