"""The best blocks, point and prices of a row's groups, by Newton's method on a smoothed bound.

With q in the place of u, the bound of `solvers.bounds.groups`

    constant - 1/2 (b - q)'R^-1 (b - q) - t keep - sum_B max_S (h_S - t |S|)

is concave in (q, D, t) together. The maxima are smoothed to `T log sum exp(. / T)`, barriers
`T log det R + T log det D` keep both parts definite, and T falls by stages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import scipy.linalg

from solvers.blocks import Block
from solvers.bounds.groups import Family, GroupSplit, Index, group_bound, secure_groups, start
from solvers.hessian import Array

COOLING = 0.35
"""Factor between two temperatures."""
STEPS = 8
"""Newton steps at one temperature."""
NOTHING = 1e-15
"""A state's weight that counts for nothing."""
ENOUGH = 0.01
"""A stage that closes less than this share of the gap is the last."""


def group_split(
    block: Block,
    d: Array,
    z: Array,
    value: float,
    *,
    size: int = 2,
    stopped: Callable[[], object] = lambda: None,
) -> tuple[GroupSplit, float]:
    """A split of a lone joint row in blocks, and its certified bound.

    Args:
        block: joint, one curvature, one right-hand side.
        d: `[n]` diagonal split to start from.
        z: `[n]` its relaxed indicators.
        value: of a mask of the row; positive.
        size: inputs of a group, a power of two.
        stopped: polled between Newton steps; a true answer ends the work.

    Raises:
        ValueError: if the block is not such a row.
    """
    if not block.refit or block.B.shape != (1, block.n, 1):
        raise ValueError("blocks of groups are for lone joint rows")
    split = start(block, d, z, size)
    work = Ascent(block, split, value)
    best, best_split = -np.inf, split
    temperature = 1.0 / block.n
    for _ in range(14):
        split = work.climb(split, temperature, stopped)
        safe = secure_groups(block.H[0], split)
        bound = group_bound(block, safe)
        gain = bound - best
        if bound > best:
            best, best_split = bound, safe
        if gain < ENOUGH * (value - best) or stopped():
            break
        temperature *= COOLING
    return best_split, best


class Ascent:
    """The smoothed bound of one row in units of its value.

    Variables, in this order: q and the diagonal of D on the entries that R couples, the off-diagonal
    entries of D, the prices. Entries that are correlated with nothing keep `D = H_ii`.
    """

    def __init__(self, block: Block, split: GroupSplit, value: float) -> None:
        H, b = block.H[0], block.B[0, :, 0]
        lone = np.abs(H).sum(axis=1) == np.abs(np.diagonal(H))
        self.value = value
        self.live = np.flatnonzero(~lone)
        self.H = H[np.ix_(self.live, self.live)] / value
        self.b = b[self.live] / value
        self.constant, self.keep = block.constant / value, block.keep.astype(np.float64)
        self.labels, self.lone_labels = block.labels[self.live], block.labels[lone]
        self.lone_scores = 0.5 * b[lone] ** 2 / np.diagonal(H)[lone] / value
        place = np.full(block.n, -1)
        place[self.live] = np.arange(len(self.live))
        n, count = len(self.live), 0
        self.members: list[Index] = []
        self.columns: list[Index] = []
        for family in split.families:
            at = place[family.members]
            at = at[(at >= 0).all(axis=1)]
            size = at.shape[1]
            pairs = list(combinations(range(size), 2))
            off = count + np.arange(len(at) * len(pairs)).reshape(len(at), len(pairs))
            count += off.size
            self.members.append(at)
            self.columns.append(np.concatenate([at, n + at, 2 * n + off], axis=1))
        self.n, self.off = n, count
        self.i, self.j = np.empty(count, np.int64), np.empty(count, np.int64)
        for at, columns in zip(self.members, self.columns, strict=True):
            size = at.shape[1]
            for column, (one, other) in enumerate(combinations(range(size), 2)):
                spot = columns[:, 2 * size + column] - 2 * n
                self.i[spot], self.j[spot] = at[:, one], at[:, other]

    def climb(self, split: GroupSplit, T: float, stopped: Callable[[], object]) -> GroupSplit:
        """Newton steps at temperature T."""
        x = self._pack(split)
        value = self._value(x, T)
        for _ in range(STEPS):
            if stopped() or not np.isfinite(value):
                break
            gradient, A = self._model(x, T)
            factor, info = scipy.linalg.lapack.dpotrf(A, lower=1, overwrite_a=1, clean=0)
            if info:
                break
            step = scipy.linalg.lapack.dpotrs(factor, gradient, lower=1)[0]
            gain = float(gradient @ step)
            reach, before = 1.0, value
            while reach > 1e-4:
                value = self._value(x + reach * step, T)
                if value >= before + 1e-4 * reach * gain:
                    break
                reach *= 0.5
            else:
                break
            x = x + reach * step
            if gain < 0.02 * T * self.n:
                break
        return self._unpack(split, x)

    def _pack(self, split: GroupSplit) -> Array:
        d, e = np.empty(self.n), np.empty(self.off)
        for family, at, columns in self._families(split):
            size = at.shape[1]
            for k in range(size):
                d[at[:, k]] = family.D[:, k, k]
            for column, (i, j) in enumerate(combinations(range(size), 2)):
                e[columns[:, 2 * size + column] - 2 * self.n] = family.D[:, i, j]
        return np.asarray(np.concatenate([split.q[self.live], d, e, split.t]) / self.value)

    def _unpack(self, split: GroupSplit, x: Array) -> GroupSplit:
        q = split.q.copy()
        q[self.live] = self.value * x[: self.n]
        families = []
        for family, blocks in zip(split.families, self._blocks(x), strict=True):
            D = family.D.copy()
            D[np.isin(family.members[:, 0], self.live)] = self.value * blocks
            families.append(Family(family.members, D))
        return replace(split, families=tuple(families), q=q, t=self.value * x[2 * self.n + self.off :])

    def _families(self, split: GroupSplit) -> list[tuple[Family, Index, Index]]:
        out = []
        for family, at, columns in zip(split.families, self.members, self.columns, strict=True):
            live = np.isin(family.members[:, 0], self.live)
            out.append((Family(family.members[live], family.D[live]), at, columns))
        return out

    def _blocks(self, x: Array) -> list[Array]:
        """`[B, s, s]` blocks of D of every family."""
        out = []
        for at, columns in zip(self.members, self.columns, strict=True):
            size = at.shape[1]
            D = np.zeros((len(at), size, size))
            for k in range(size):
                D[:, k, k] = x[columns[:, size + k]]
            for column, (i, j) in enumerate(combinations(range(size), 2)):
                D[:, i, j] = D[:, j, i] = x[columns[:, 2 * size + column]]
            out.append(D)
        return out

    def _remainder(self, x: Array) -> Array:
        R: Array = self.H.copy()
        R[np.diag_indices(self.n)] -= x[self.n : 2 * self.n]
        e = x[2 * self.n : 2 * self.n + self.off]
        R[self.i, self.j] -= e
        R[self.j, self.i] -= e
        return R

    def _value(self, x: Array, T: float) -> float:
        n = self.n
        q, t = x[:n], x[2 * n + self.off :]
        barrier = smooth = 0.0
        for at, D in zip(self.members, self._blocks(x), strict=True):
            if not len(at):
                continue
            try:
                L = np.linalg.cholesky(D)
            except np.linalg.LinAlgError:
                return -np.inf
            barrier += 2.0 * float(np.log(np.diagonal(L, axis1=1, axis2=2)).sum())
            price = t[self.labels[at[:, 0]]]
            scores = [np.zeros(len(at))]
            for S, _, w in Family(at, D).states(q[at]):
                scores.append(0.5 * np.einsum("bi,bi->b", q[at], w) - len(S) * price)
            smooth += T * float(np.logaddexp.reduce(np.stack(scores) / T, axis=0).sum())
        smooth += T * float(np.logaddexp(0.0, (self.lone_scores - t[self.lone_labels]) / T).sum())
        factor, info = scipy.linalg.lapack.dpotrf(self._remainder(x), lower=1, overwrite_a=1)
        if info:
            return -np.inf
        y = scipy.linalg.solve_triangular(factor, self.b - q, lower=True, check_finite=False)
        barrier += 2.0 * float(np.log(np.diagonal(factor)).sum())
        return float(self.constant - 0.5 * (y @ y) - t @ self.keep - smooth + T * barrier)

    def _model(self, x: Array, T: float) -> tuple[Array, Array]:
        """Gradient, and minus the second derivative.

        With `y = R^-1 (b - q)`: q moves y by `-R^-1`, an entry `E` of D by `R^-1 E y`; the barrier's
        second derivative is `tr(R^-1 E R^-1 E')`.
        """
        n, i, j = self.n, self.i, self.j
        lapack = scipy.linalg.lapack
        S = lapack.dpotri(lapack.dpotrf(self._remainder(x), lower=1)[0], lower=1)[0]
        S = np.tril(S) + np.tril(S, -1).T
        y = S @ (self.b - x[:n])
        A = np.zeros((len(x), len(x)))
        gradient = np.empty(len(x))
        Q, D, E = slice(0, n), slice(n, 2 * n), slice(2 * n, 2 * n + self.off)
        gradient[Q] = y
        gradient[D] = -0.5 * y * y - T * np.diagonal(S)
        gradient[E] = -y[i] * y[j] - 2.0 * T * S[i, j]
        Si, Sj = S[:, i], S[:, j]
        moved = Si * y[j] + Sj * y[i]
        A[Q, Q] = S
        A[D, Q] = -y[:, None] * S
        A[D, D] = S * (np.outer(y, y) + T * S)
        A[E, Q] = -moved.T
        A[E, D] = (moved * y[:, None] + 2.0 * T * Si * Sj).T
        A[E, E] = y[j][:, None] * moved[i] + y[i][:, None] * moved[j]
        A[E, E] += 2.0 * T * (Si[i] * Sj[j] + Sj[i] * Si[j])
        t = x[2 * n + self.off :]
        gradient[2 * n + self.off :] = -self.keep
        for at, columns, blocks in zip(self.members, self.columns, self._blocks(x), strict=True):
            if len(at):
                prices = 2 * n + self.off + self.labels[at[:, 0]]
                rows = np.concatenate([columns, prices[:, None]], axis=1)
                price = t[self.labels[at[:, 0]]]
                slope, curve = states_model(Family(at, blocks), x[at], price, T)
                np.add.at(gradient, rows, slope)
                np.add.at(A, (rows[:, :, None], rows[:, None, :]), curve)
        weight = 1.0 / (1.0 + np.exp(np.clip((t[self.lone_labels] - self.lone_scores) / T, -500, 500)))
        last = 2 * n + self.off + self.lone_labels
        np.add.at(gradient, last, weight)
        np.add.at(A, (last, last), weight * (1.0 - weight) / T)
        return gradient, A


def states_model(family: Family, q: Array, price: Array, T: float) -> tuple[Array, Array]:
    """What groups add to the gradient `[B, v]` and to minus the second derivative `[B, v, v]`.

    Variables `q_1 .. q_s, D_11 .. D_ss, D_12 .., t`. The score `h_S - t |S|` has, with `w = (D_SS)^-1 q_S`,
    the gradient `(w, -1/2 w^2, -w_k w_l, -|S|)` and the second derivative `Z' (D_SS)^-1 Z`, Z having the
    columns `e_k` for q and `-E w` for D; the smoothed maximum adds the scores' covariance over T.
    """
    count, size = family.members.shape
    pairs = list(combinations(range(size), 2))
    v = 2 * size + len(pairs) + 1
    states = list(family.states(q))
    scores = [np.zeros(count)]
    scores += [0.5 * np.einsum("bi,bi->b", q, w) - len(S) * price for S, _, w in states]
    top = np.stack(scores)
    weights = np.exp((top - top.max(axis=0)) / T)
    weights /= weights.sum(axis=0)
    mean, curve = np.zeros((count, v)), np.zeros((count, v, v))
    for (S, inverse, w), weight in zip(states, weights[1:], strict=True):
        at = np.flatnonzero(weight > NOTHING)
        if not len(at):
            continue
        w, share = w[at], weight[at]
        slope, Z = np.zeros((len(at), v)), np.zeros((len(at), size, v))
        slope[:, :size], slope[:, size : 2 * size] = w, -0.5 * w * w
        for k in S:
            Z[:, k, k], Z[:, k, size + k] = 1.0, -w[:, k]
        for column, (k, m) in enumerate(pairs):
            slope[:, 2 * size + column] = -w[:, k] * w[:, m]
            if k in S and m in S:
                Z[:, k, 2 * size + column], Z[:, m, 2 * size + column] = -w[:, m], -w[:, k]
        slope[:, -1] = -len(S)
        mean[at] += share[:, None] * slope
        bend = Z.transpose(0, 2, 1) @ (inverse[at] @ Z) + slope[:, :, None] * slope[:, None, :] / T
        curve[at] += share[:, None, None] * bend
    curve -= mean[:, :, None] * mean[:, None, :] / T
    inverse = np.asarray(np.linalg.inv(family.D))
    basis = np.zeros((v, size, size))
    for k in range(size):
        basis[size + k, k, k] = 1.0
    for column, (k, m) in enumerate(pairs):
        basis[2 * size + column, k, m] = basis[2 * size + column, m, k] = 1.0
    moved = np.einsum("bxy,kyz->bkxz", inverse, basis)
    curve += T * np.einsum("bkxz,blzx->bkl", moved, moved)
    return np.asarray(T * np.einsum("bkxx->bk", moved) - mean), np.asarray(curve)
