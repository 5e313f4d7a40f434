"""Best 1-swaps in one row, compiled: the tableau kept on the survivors' rows only."""

from __future__ import annotations

import numpy as np
from numba import njit

from solvers.bounds.oracle import FLAGS


@njit(cache=True, nogil=True, fastmath=FLAGS)
def improve_joint(H, w, pruned, labels, gain, limit):  # type: ignore[no-untyped-def]
    """Best-improvement swaps on the joint cost; `(moves, cost)`, `pruned` changed in place.

    With survivors S, A = H_SS^-1 and P the rest, the rows of `JointTableau`'s E that belong to S are
    `E_SS = A`, `E_SP = -A H_SP`, and the other blocks follow from them: `M_iP = H_iP + H_iS E_SP`. So
    `|S| n` numbers are enough, and a swap costs `O(|S| n)`.

    Args:
        H: `[n, n]`.
        w: `[n]`.
        pruned: `[n]` bool.
        labels: `[n]` pools; swaps stay inside one.
        gain: smallest relative gain of a move.
        limit: moves at most; rounding gathers, so start afresh after some tens.
    """
    n = len(w)
    kept = np.flatnonzero(~pruned)
    s = len(kept)
    E = np.zeros((s, n))
    y = np.zeros(n)
    M = np.zeros(n)
    cost = 0.0
    if s == 0 or s == n:
        return 0, cost
    gone = np.flatnonzero(pruned)
    block = np.empty((s, s))
    across = np.empty((s, n - s))
    for a in range(s):
        for b in range(s):
            block[a, b] = H[kept[a], kept[b]]
        for b in range(n - s):
            across[a, b] = H[kept[a], gone[b]]
    A = np.linalg.inv(block)
    T = A @ across
    for a in range(s):
        for b in range(s):
            E[a, kept[b]] = A[a, b]
        y[kept[a]] = w[kept[a]]
        for b in range(n - s):
            E[a, gone[b]] = -T[a, b]
            y[kept[a]] += T[a, b] * w[gone[b]]
    for b in range(n - s):
        i = gone[b]
        total = H[i, i]
        for a in range(s):
            total -= across[a, b] * T[a, b]
        M[i] = total
        pull = 0.0
        for c in range(n - s):
            pull += H[i, gone[c]] * w[gone[c]]
        for a in range(s):
            pull += across[a, b] * (w[kept[a]] - y[kept[a]])
        y[i] = pull
        cost += 0.5 * w[i] * pull
    row = np.empty(n)
    moves = 0
    while moves < limit:
        best, come, go = 0.0, -1, -1
        for i in range(n):
            if not pruned[i]:
                continue
            back = -0.5 * y[i] * y[i] / M[i]
            ratio = y[i] / M[i]
            for a in range(s):
                j = kept[a]
                if labels[j] != labels[i]:
                    continue
                top = y[j] + E[a, i] * ratio
                change = back + 0.5 * top * top / (E[a, j] + E[a, i] * E[a, i] / M[i])
                if change < best:
                    best, come, go = change, i, a
        if come < 0 or best > -gain * cost:
            break
        moves += 1
        i, g = come, go
        j = kept[g]
        # restore i: its row of E is T_iS on survivors and -M_iP on the pruned
        for k in range(n):
            row[k] = -H[i, k] if pruned[k] else 0.0
        for a in range(s):
            h = H[i, kept[a]]
            row[kept[a]] = E[a, i]
            for k in range(n):
                if pruned[k]:
                    row[k] -= h * E[a, k]
        p = -M[i]
        yi = y[i]
        for a in range(s):
            f = E[a, i] / p
            for k in range(n):
                E[a, k] -= f * row[k]
            E[a, i] = -f
        for k in range(n):
            y[k] -= row[k] * yi / p
            if pruned[k]:
                M[k] += row[k] * row[k] / p
        y[i] = -yi / p
        cost += 0.5 * yi * yi / p
        for k in range(n):
            row[k] = -row[k] / p
        row[i] = -1.0 / p
        pruned[i] = False
        # prune j: row g of E leaves, the row of i takes its place
        q = E[g, j]
        yj = y[j]
        leaving = E[g].copy()
        for a in range(s):
            if a == g:
                E[a] = row
            f = E[a, j] / q
            for k in range(n):
                E[a, k] -= f * leaving[k]
            E[a, j] = f
        for k in range(n):
            y[k] -= leaving[k] * yj / q
            if pruned[k]:
                M[k] += leaving[k] * leaving[k] / q
        y[j] = yj / q
        M[j] = 1.0 / q
        cost += 0.5 * yj * yj / q
        pruned[j] = True
        kept[g] = i
    return moves, cost


@njit(cache=True, nogil=True, fastmath=FLAGS)
def improve_selection(A, c, pruned, labels, gain, limit):  # type: ignore[no-untyped-def]
    """The same for the selection cost `1/2 x'Ax - c'x`: `(moves, cost)`."""
    n = len(c)
    a = np.zeros(n)
    for i in range(n):
        if pruned[i]:
            for k in range(n):
                a[k] += A[i, k]
    cost = 0.0
    for i in range(n):
        if pruned[i]:
            cost += 0.5 * a[i] - c[i]
    moves = 0
    while moves < limit:
        best, come, go = 0.0, -1, -1
        for i in range(n):
            if not pruned[i]:
                continue
            back = 0.5 * A[i, i] - a[i] + c[i]
            for j in range(n):
                if pruned[j] or labels[j] != labels[i]:
                    continue
                change = back + a[j] + 0.5 * A[j, j] - c[j] - A[i, j]
                if change < best:
                    best, come, go = change, i, j
        if come < 0 or best > -gain * abs(cost):
            break
        moves += 1
        cost += best
        pruned[come], pruned[go] = False, True
        for k in range(n):
            a[k] += A[go, k] - A[come, k]
    return moves, cost
