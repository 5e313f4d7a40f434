"""One row's pruned set and every move from it, compiled: what all primal heuristics of rows are made of.

Pruning an entry, or restoring one, is a pivot on the row's tableau (a sweep of the curvature).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.hessian import Array
from solvers.heuristics.rows.reach import Reach, open_reach
from solvers.runtime.compiled import FLAGS, njit


class RowData(NamedTuple):
    """A row of decisions: what does not change while its mask does.

    Attributes:
        refit: joint, or selection.
        H: `[n, n]`.
        w: `[n]`.
        c: `[n]` linear terms of a selection, `1/2 x'Ax - c'x`.
        labels: `[n]` pools, never falling.
        gram: `[n, n]` of joint columns, or empty; see `Row`.
        limits: `[3, n]` from `correlations`, or `[3, 0]`; see `Reach`.
    """

    refit: bool
    H: Array
    w: Array
    c: Array
    labels: NDArray[np.int64]
    gram: Array = np.zeros((0, 0))
    limits: Array = np.zeros((3, 0))

    def read_only(self) -> RowData:
        """The same with a view of H; what is written to and what is not would be compiled twice."""
        return self._replace(H=read_only(self.H))


def read_only(H: Array) -> Array:
    """A view that can't be written to."""
    view = H.view()
    view.setflags(write=False)
    return view


class Row(NamedTuple):
    """The state of one row, as compiled code takes it.

    Joint: the sweep of `H^-1` on the pruned set P, of which the rows of the survivors S are kept:
    `E_SS = A = H_SS^-1` and `E_SP = -A H_SP`. The other block follows from them:
    `M = (H^-1)_PP^-1 = H_PP + H_PS E_SP`. Survivors have the weights `w^ = w_S - E_SP w_P`, and what is
    pruned has the multipliers `u = M w_P`. Pruning j costs the OBS saliency `w^_j^2 / (2 E_jj)` (Hassibi &
    Stork 1992), restoring i gains `u_i^2 / (2 M_ii)`. So `|S| n` numbers are enough, a move costs `O(|S| n)`,
    and so does a look at every swap.
    Joint columns, with one mask for rows W: all that their y, the columns of Y, have a say in is `K = Y Y'`,
    which `G = W'W` is enough for; a move costs `O(n^2)`.
    Selection: `y = A x` with `A = diag(w) H diag(w)`; a move costs `O(n)`.

    Attributes:
        refit: joint, or selection.
        H: `[n, n]`.
        w: `[n]`.
        c: `[n]` linear terms of a selection.
        first: `[n]` where the pool of an entry begins.
        last: `[n]` where it ends.
        pruned: `[n]` bool.
        kept: `[room]` the survivors, in any order.
        slot: `[n]` a survivor's place among them.
        E: `[room, n]` joint: the survivors' rows, in the order of `kept`.
        y: `[n]` joint: `w^` on S and u on P; selection: `A x`.
        M: `[n]` joint: the diagonal of M on P.
        gram: `[n, n]` joint columns: G; else empty.
        K: `[n, n]` joint columns; else empty.
        reach: of a selection in wide pools; else empty.
        size: `[1]` survivors.
        cost: `[1]` of the pruned set.
        spare: `[4, n]` room to compute in.
    """

    refit: bool
    H: Array
    w: Array
    c: Array
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    pruned: NDArray[np.bool_]
    kept: NDArray[np.int64]
    slot: NDArray[np.int64]
    E: Array
    y: Array
    M: Array
    gram: Array
    K: Array
    reach: Reach
    size: NDArray[np.int64]
    cost: Array
    spare: Array


@njit(cache=True, nogil=True)
def open_row(data, pruned, room):  # type: ignore[no-untyped-def]
    """The `Row` of some `RowData` at a pruned set `[n]`, which it goes on to change in place.

    `room` is how many survivors there may ever be: one more than now, for swaps.
    """
    refit, H, w, c, labels, gram, limits = data
    n = len(w)
    first, last = np.zeros(n, np.int64), np.full(n, n)
    for k in range(1, n):
        first[k] = first[k - 1] if labels[k] == labels[k - 1] else k
    for k in range(n - 2, -1, -1):
        last[k] = last[k + 1] if labels[k] == labels[k + 1] else k + 1
    row = Row(
        refit, H, w, c, first, last, pruned, np.zeros(room, np.int64), np.zeros(n, np.int64),
        np.zeros((room if refit else 0, n)), np.zeros(n), np.ones(n), gram, np.zeros_like(gram),
        open_reach(H, w, limits), np.zeros(1, np.int64), np.zeros(1), np.zeros((4, n)),
    )  # fmt: skip
    refresh(row)
    return row


@njit(cache=True, nogil=True, fastmath=FLAGS)
def refresh(row):  # type: ignore[no-untyped-def]
    """Compute the state from the data, dropping whatever rounding the moves have gathered."""
    n, s = len(row.w), 0
    for k in range(n):
        if not row.pruned[k]:
            row.kept[s], row.slot[k] = k, s
            s += 1
    row.size[0] = s
    H, w, y, pruned = row.H, row.w, row.y, row.pruned
    # H D with D = w on P, for both variants
    for k in range(n):
        y[k] = 0.0
    for i in range(n):
        if pruned[i]:
            for k in range(n):
                y[k] += H[i, k] * w[i]
    total = 0.0
    if not row.refit:
        for k in range(n):
            y[k] *= w[k]
            if pruned[k]:
                total += 0.5 * y[k] - row.c[k]
        row.cost[0] = total
        return
    kept, E, M = row.kept, row.E, row.M
    if s:
        block, pull = np.empty((s, s)), np.empty(s)
        for a in range(s):
            pull[a] = y[kept[a]]
            for b in range(s):
                block[a, b] = H[kept[a], kept[b]]
        A = np.linalg.inv(block)
        across = np.empty((s, n))
        for a in range(s):
            for k in range(n):
                across[a, k] = H[kept[a], k]
        T = A @ across if s < n else across
        for a in range(s):
            for k in range(n):
                E[a, k] = -T[a, k]
            for b in range(s):
                E[a, kept[b]] = A[a, b]
        moves = A @ pull
        for a in range(s):
            for k in range(n):
                y[k] -= across[a, k] * moves[a]
        for a in range(s):
            y[kept[a]] = w[kept[a]] + moves[a]
    for k in range(n):
        M[k] = H[k, k]
    for a in range(s):
        for k in range(n):
            M[k] += H[kept[a], k] * E[a, k]
    if len(row.K):
        _gather(row, _map(row))
        return
    for k in range(n):
        if pruned[k]:
            total += 0.5 * w[k] * y[k]
    row.cost[0] = total


@njit(cache=True, nogil=True)
def _gather(row, T):  # type: ignore[no-untyped-def]
    """K and the cost afresh, from the map T `[n, n]` that takes all weights to all y."""
    part = T @ row.gram
    row.K[:] = part @ T.T
    total = 0.0
    for k in range(len(T)):
        if row.pruned[k]:
            total += 0.5 * part[k, k]
    row.cost[0] = total


@njit(cache=True, nogil=True)
def _map(row):  # type: ignore[no-untyped-def]
    """`[n, n]` what takes w to y: `I, -E_SP` in the survivors' rows, `0, M_PP` in the others."""
    n, s = len(row.w), row.size[0]
    kept, E = row.kept[:s], row.E[:s]
    across = np.empty((s, n))
    for a in range(s):
        across[a] = row.H[kept[a]]
    T = across.T @ E
    for k in range(n):
        for i in range(n):
            T[k, i] = T[k, i] + row.H[k, i] if row.pruned[i] else 0.0
    for a in range(s):
        for i in range(n):
            T[kept[a], i] = -E[a, i] if row.pruned[i] else 0.0
        T[kept[a], kept[a]] = 1.0
    return T


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _turn(K, line, p, i, sign):  # type: ignore[no-untyped-def]
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


@njit(cache=True, nogil=True, fastmath=FLAGS)
def restore(row, i):  # type: ignore[no-untyped-def]
    """Entry i, pruned, comes back."""
    n, s = len(row.w), row.size[0]
    H, w, y = row.H, row.w, row.y
    if row.refit:
        E, M, kept, line = row.E, row.M, row.kept, row.spare[0]
        # i's line of the tableau: T_iS on the survivors, -M_iP on the pruned
        for k in range(n):
            line[k] = -H[i, k]
        for a in range(s):
            h = H[i, kept[a]]
            for k in range(n):
                line[k] -= h * E[a, k]
        for a in range(s):
            line[kept[a]] = E[a, i]
        p = -M[i]
        step = y[i] / p
        row.cost[0] += _turn(row.K, line, p, i, -1.0) if len(row.K) else 0.5 * y[i] * step
        for a in range(s):
            f = E[a, i] / p
            for k in range(n):
                E[a, k] -= f * line[k]
            E[a, i] = -f
        for k in range(n):
            y[k] -= line[k] * step
            M[k] += line[k] * line[k] / p if row.pruned[k] else 0.0
            E[s, k] = -line[k] / p
        y[i] = -step
        E[s, i] = -1.0 / p
    else:
        row.cost[0] += 0.5 * w[i] * w[i] * H[i, i] - y[i] + row.c[i]
        for k in range(n):
            y[k] -= w[i] * H[i, k] * w[k]
    row.pruned[i] = False
    row.kept[s], row.slot[i] = i, s
    row.size[0] = s + 1


@njit(cache=True, nogil=True, fastmath=FLAGS)
def prune(row, j):  # type: ignore[no-untyped-def]
    """Entry j, a survivor, goes."""
    n, s = len(row.w), row.size[0] - 1
    H, w, y, g = row.H, row.w, row.y, row.slot[j]
    if row.refit:
        E, M, line = row.E, row.M, row.spare[0]
        for k in range(n):
            line[k] = E[g, k]
            E[g, k] = E[s, k]
        q = line[j]
        step = y[j] / q
        row.cost[0] += _turn(row.K, line, q, j, 1.0) if len(row.K) else 0.5 * y[j] * step
        for a in range(s):
            f = E[a, j] / q
            for k in range(n):
                E[a, k] -= f * line[k]
            E[a, j] = f
        for k in range(n):
            y[k] -= line[k] * step
            M[k] += line[k] * line[k] / q if row.pruned[k] else 0.0
        y[j], M[j] = step, 1.0 / q
    else:
        row.cost[0] += 0.5 * w[j] * w[j] * H[j, j] + y[j] - row.c[j]
        for k in range(n):
            y[k] += w[j] * H[j, k] * w[k]
    row.pruned[j] = True
    row.kept[g] = row.kept[s]
    row.slot[row.kept[g]] = g
    row.size[0] = s
