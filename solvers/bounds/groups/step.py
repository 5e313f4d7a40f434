"""One primal-dual step of the barrier problem of `solvers.bounds.groups.system`.

In the matrix of Newton's method the multipliers `L ~ T R^-1` and `p_BS ~ a T / s_BS` are variables of
their own (the HKM form), so that long steps stay good ones as T falls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.linalg
from numba import njit

from solvers.bounds.groups.states import States, counts, entries
from solvers.bounds.groups.system import GroupSystem, Point
from solvers.hessian import Array
from solvers.runtime.compiled import FLAGS

INSIDE = 0.95
"""Share of the way to the boundary that multipliers may go."""


@dataclass(frozen=True)
class Multipliers:
    """`L [n, n]` of the remainder, empty where blocks are held, and `p [B, 2^s]` of every family's states."""

    L: Array
    p: tuple[Array, ...]

    @classmethod
    def central(cls, system: GroupSystem, point: Point, T: float) -> Multipliers:
        """Those of a point of the central path."""
        L = np.zeros((0, 0)) if system.held else T * point.S
        return cls(L, tuple(a * T / s for a, s in zip(system.weights, point.slack, strict=True)))

    def moved(self, step: Multipliers) -> tuple[Multipliers, float]:
        """These and what of a step keeps them positive, with the share of it that was taken."""
        reach = 1.0
        for old, change in zip(self.p, step.p, strict=True):
            falling = change < 0.0
            if falling.any():
                reach = min(reach, INSIDE * float((old[falling] / -change[falling]).min()))
        while (
            len(self.L)
            and scipy.linalg.lapack.dpotrf(self.L + reach / INSIDE * step.L, lower=1, overwrite_a=1)[1]
        ):
            reach *= 0.8
        p = tuple(old + reach * change for old, change in zip(self.p, step.p, strict=True))
        return Multipliers(self.L + reach * step.L, p), reach


class Step(NamedTuple):
    """A step of the variables and of their multipliers, and the merit's slope along it."""

    x: Array
    dual: Multipliers
    slope: float


class Share(NamedTuple):
    """What a family adds: slopes of its scores, their weights in the matrix, and the equation of tau.

    `tau` moves by `(lean . x - short) / total`.
    """

    slopes: Array
    weight: Array
    pull: Array
    lean: Array
    total: Array
    short: Array


def newton_step(system: GroupSystem, point: Point, dual: Multipliers, T: float) -> Step | None:
    """The step towards the central path at T, or None if rounding leaves its matrix indefinite."""
    n, S, y, prices, held = system.n, point.S, point.y, system.prices, system.held
    first, second = system.first, system.second
    A = np.zeros((len(point.x), len(point.x)))
    gradient = np.empty(len(point.x))
    gradient[:n], gradient[prices:] = -y, system.keep
    if held:
        A[:n, :n] = S
    else:
        fill(A, S, np.outer(y, y) + dual.L, y, first, second, system.half)
        gradient[n:prices] = system.half * (y[first] * y[second] + 2.0 * T * S[first, second])
    shares = []
    for k, columns in enumerate(system.columns):
        found = point.states[k], point.slack[k], dual.p[k], system.weights[k]
        share, rise, curve = (_settled if held else _family)(*found, T)
        shares.append(share)
        np.add.at(gradient, columns, rise)
        np.add.at(A, (columns[:, :, None], columns[:, None, :]), curve)
    A[np.diag_indices(len(A))] *= 1.0 + 1e-13
    factor, info = scipy.linalg.lapack.dpotrf(A.T, lower=0, overwrite_a=1, clean=0)
    if info:
        return None
    dx = -scipy.linalg.lapack.dpotrs(factor, gradient, lower=0)[0]
    slope, dp = float(gradient @ dx), []
    for k, share in enumerate(shares):
        own = dx[system.columns[k]]
        tau = (np.einsum("bv,bv->b", share.lean, own) - share.short) / share.total
        slack = tau[:, None] - np.einsum("bmv,bv->bm", share.slopes, own)
        dp.append(share.pull - dual.p[k] - share.weight * slack)
    if held:
        return Step(dx, Multipliers(dual.L, tuple(dp)), slope)
    dL = dual.L @ system.whole(dx) @ S
    return Step(dx, Multipliers(T * S - dual.L + 0.5 * (dL + dL.T), tuple(dp)), slope)


def _family(states: States, slack: Array, p: Array, a: float, T: float) -> tuple[Share, Array, Array]:
    """A family's share, and its gradients `[B, v]` and second derivatives `[B, v, v]` with tau eliminated."""
    size = states.w.shape[2]
    i, j, half = entries(size)
    share, slope, curve = _scores(states.slopes(), states.curvature(p), slack, p, a, T)
    C = states.inverse[:, -1]
    one, other = np.ix_(range(len(i)), range(len(i)))
    bend = C[:, i[one], i[other]] * C[:, j[one], j[other]] + C[:, i[one], j[other]] * C[:, j[one], i[other]]
    curve[:, size:-1, size:-1] += 2.0 * T * half[:, None] * half * bend
    slope[:, size:-1] -= 2.0 * T * half * C[:, i, j]
    return share, slope, curve


def _settled(states: States, slack: Array, p: Array, a: float, T: float) -> tuple[Share, Array, Array]:
    """As `_family`, in q and the price alone."""
    B, _, size = states.w.shape
    kept = np.broadcast_to(counts(size), states.h.shape)[:, :, None]
    bend = (p[:, None] @ states.inverse.reshape(*p.shape, -1)).reshape(B, size, size)
    return _scores(np.concatenate([states.w, -kept], axis=2), bend, slack, p, a, T)


def _scores(
    slopes: Array, bend: Array, slack: Array, p: Array, a: float, T: float
) -> tuple[Share, Array, Array]:
    """What the scores of a family add, from their slopes and their second derivatives, prices left out."""
    pull, weight = a * T / slack, p / slack
    total, lean = weight.sum(axis=1), (weight[:, :, None] * slopes).sum(axis=1)
    short = 1.0 - pull.sum(axis=1)
    curve = (weight[:, :, None] * slopes).transpose(0, 2, 1) @ slopes
    curve -= lean[:, :, None] * (lean / total[:, None])[:, None, :]
    curve[:, :-1, :-1] += bend
    slope = (pull[:, :, None] * slopes).sum(axis=1) + lean * (short / total)[:, None]
    return Share(slopes, weight, pull, lean, total, short), slope, curve


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
