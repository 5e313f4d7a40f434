"""Newton's method on the barrier problem by its matrix: steps, and how stiff the shares of entries are."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from solvers.bounds.groups.barrier import GroupSystem, Multipliers, Point, Step, Sums
from solvers.bounds.groups.kernels import scatter
from solvers.hessian import Array
from solvers.runtime.compiled import FLAGS, njit

lapack = scipy.linalg.lapack


def newton_step(system: GroupSystem, point: Point, dual: Multipliers, T: float) -> Step | None:
    """The step towards the central path at T, or None if rounding leaves its matrix indefinite."""
    sums = Sums.of(system, point, dual, T)
    factor = _factor(system, point, dual, sums)
    if factor is None:
        return None
    return sums.step(system, point, dual, T, -lapack.dpotrs(factor, sums.gradient, lower=0)[0])


def compliance(system: GroupSystem, point: Point, dual: Multipliers, T: float) -> Array | None:
    """`[n]` by how much the share of every entry that is kept falls, a unit of a price on that entry alone.

    The barrier problem's least value `g(e)` at a price e of keeping entry i besides t has the slope `-share`,
    and what is returned is `g''(0)`. With W_S the weights of states, those that keep the entry curve by
    `m - m^2 / total`, `m = sum_{S with i} W_S`, as their level moves along, and the variables give way by
    `k'A^-1 k`, `k = sum_{S with i} W_S slope_S - m lean / total`. At least a billionth of the former, which
    is what rounding leaves of their difference. None if rounding leaves the matrix A indefinite.
    """
    sums = Sums.of(system, point, dual, T)
    factor = _factor(system, point, dual, sums)
    if factor is None:
        return None
    K, own = np.zeros((len(point.x), system.n)), np.empty(system.n)
    for states, at, columns, share in zip(
        system.states, system.families, system.columns, sums.shares, strict=True
    ):
        inside = states.kept.astype(np.float64)
        m = share.weight @ inside
        k = share.slopes.transpose(0, 2, 1) @ (share.weight[:, :, None] * inside)
        k -= share.lean[:, :, None] * (m / share.total[:, None])[:, None, :]
        K[columns[:, :, None], at[:, None, :]] = k
        own[at] = m - m * m / share.total[:, None]
    y = scipy.linalg.solve_triangular(factor, K, trans=1, lower=False, check_finite=False)
    return np.asarray(np.maximum(own - np.einsum("vn,vn->n", y, y), 1e-9 * own))


def _factor(system: GroupSystem, point: Point, dual: Multipliers, sums: Sums) -> Array | None:
    """The matrix's upper factor, over anything below its diagonal."""
    n, S, y = system.n, point.S, point.y
    A = np.zeros((len(point.x), len(point.x)))
    if system.held:
        A[:n, :n] = S
    else:
        fill(A, S, np.outer(y, y) + dual.L, y, system.first, system.second, system.half)
    for columns, curves in zip(system.columns, sums.curves, strict=True):
        scatter(A, columns, curves)
    A[np.diag_indices(len(A))] *= 1.0 + 1e-13
    factor, info = lapack.dpotrf(A.T, lower=0, overwrite_a=1, clean=0)
    return None if info else factor


@njit(cache=True, nogil=True, fastmath=FLAGS)
def fill(A, S, M, y, first, second, half):  # type: ignore[no-untyped-def]
    """The remainder's part of the matrix, lower half: `S` in q, `-S E y` across, `tr(E S E' M)` in D."""
    n = len(y)
    for i in range(n):
        for k in range(i + 1):
            A[i, k] = S[i, k]
    for e in range(len(first)):
        i, j, f, row = first[e], second[e], half[e], n + e
        for k in range(n):
            A[row, k] = -f * (S[i, k] * y[j] + S[j, k] * y[i])
        for g in range(e + 1):
            k, m = first[g], second[g]
            pairs = S[i, k] * M[j, m] + S[i, m] * M[j, k] + S[j, k] * M[i, m] + S[j, m] * M[i, k]
            A[row, n + g] = f * half[g] * pairs
