"""The best single move from a mask, compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

from solvers.runtime.compiled import FLAGS


@njit(cache=True, nogil=True, fastmath=FLAGS)
def best_moves(refit, H, b, pruned):  # type: ignore[no-untyped-def]
    """`(go, come)`: the survivor that is cheapest to prune, and the pruned entry that is best to restore.

    Joint, with survivors S, `A = H_SS^-1`, `v = A b_S` (DESIGN of the tableau, without the pruned half):

        prune j    + v_j^2 / (2 A_jj)
        restore i  - (b_i - H_iS v)^2 / (2 (H_ii - H_iS A H_Si))

    Selection, with `a = H x`: `a_j + H_jj / 2 - b_j` and `-a_i + H_ii / 2 + b_i`. -1 where there is none.

    Args:
        refit: joint, or selection.
        H: `[n, n]`.
        b: `[n]`.
        pruned: `[n]` bool.
    """
    n = len(b)
    go, come = -1, -1
    least, most = np.inf, np.inf
    if not refit:
        for i in range(n):
            pull = 0.0
            for k in range(n):
                if pruned[k]:
                    pull += H[i, k]
            if pruned[i]:
                change = 0.5 * H[i, i] - pull + b[i]
                if change < most:
                    most, come = change, i
            else:
                change = pull + 0.5 * H[i, i] - b[i]
                if change < least:
                    least, go = change, i
        return go, come
    kept = np.flatnonzero(~pruned)
    s = len(kept)
    if s == 0:
        for i in range(n):
            change = -0.5 * b[i] * b[i] / H[i, i]
            if change < most:
                most, come = change, i
        return go, come
    block = np.empty((s, s))
    right = np.empty(s)
    for a in range(s):
        right[a] = b[kept[a]]
        for c in range(s):
            block[a, c] = H[kept[a], kept[c]]
    A = np.linalg.inv(block)
    v = A @ right
    for a in range(s):
        change = 0.5 * v[a] * v[a] / A[a, a]
        if change < least:
            least, go = change, kept[a]
    across = np.empty(s)
    for i in range(n):
        if pruned[i]:
            pull, size = b[i], H[i, i]
            for a in range(s):
                across[a] = H[i, kept[a]]
                pull -= across[a] * v[a]
            for a in range(s):
                row = 0.0
                for c in range(s):
                    row += A[a, c] * across[c]
                size -= across[a] * row
            change = -0.5 * pull * pull / size
            if change < most:
                most, come = change, i
    return go, come
