"""The states of blocks that many rows share: what they are worth, and the moments of a smoothed choice.

A block keeps a part S of its entries, worth `h_S - t |S|`, `h_S = 1/2 q_S' (D_SS)^-1 q_S`, with t the price
of keeping an entry. States are numbered by their bits. With k the highest bit of a state and P the rest of
it, the bordered inverse has a vector v, `v_k = 1` and `v_P = -(D_PP)^-1 D_Pk`, and
`r = D_kk - D_kP (D_PP)^-1 D_Pk`:

    (D_SS)^-1 = (D_PP)^-1 + v v' / r,    h_S = h_P + (v'q)^2 / (2 r),    w_S = w_P + v (v'q) / r

so that a state's worth takes one product of s numbers, and v and r are the same for all rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.bounds.groups.split import EPS, Index
from solvers.hessian import Array

Allowed = NDArray[np.bool_]

NEGLIGIBLE = 1e-13
"""Weight of a state, relative to a block's largest, below which it counts for nothing."""


@dataclass(frozen=True)
class Table:
    """Blocks of at most s entries with their states.

    Attributes:
        members: `[B, s]` entries; n in places that are not used.
        allowed: `[B, 2^s]` states that a mask may have; none keeps a place that is not used.
        D: `[B, s, s]`, positive on the diagonal alone in places that are not used.
        v: `[B, 2^s, s]`.
        r: `[B, 2^s]`, positive.
    """

    members: Index
    allowed: Allowed
    D: Array
    v: Array
    r: Array

    @classmethod
    def of(cls, members: Index, allowed: Allowed, D: Array) -> Table | None:
        """The states of blocks, or None if one is not positive definite."""
        v, r = np.zeros((*allowed.shape, members.shape[1])), np.ones(allowed.shape)
        return cls(members, allowed, D, v, r) if _borders(D, v, r) else None

    def choices(self, q: Array, t: Array, T: float) -> Choices:
        """What a smoothed choice of states has, at residuals `q [n]`, prices `t [B]` and a temperature."""
        B, s = self.members.shape
        wide = np.append(q, 0.0)[self.members]
        g, count = np.zeros((B, s)), np.zeros(B)
        C = np.zeros((B, s + 1, s + 1))
        soft, hard = _choices(wide, self.v, self.r, self.allowed, t, T, g, count, C)
        return Choices(soft, hard, g, count, C)

    def worth(self, q: Array, t: Array, T: float) -> tuple[float, float]:
        """The smoothed sum of the blocks' best states, and that sum itself."""
        return _worth(np.append(q, 0.0)[self.members], self.v, self.r, self.allowed, t, T)  # type: ignore[no-any-return]

    def best(self, q: Array, error: Array, t: Array) -> tuple[float, float]:
        """`sum_B max_S (h_S - t |S|)` from above, for any q within an error, and the size of its terms."""
        wide, off = np.append(q, 0.0)[self.members], np.append(error, 0.0)[self.members]
        lowest = np.linalg.eigvalsh(self.D)[:, 0]
        lowest -= 16.0 * self.D.shape[1] * EPS * np.trace(self.D, axis1=1, axis2=2)
        if not (lowest > 0.0).all():
            return np.inf, np.inf
        return _best(wide, off, self.D, lowest, self.v, self.r, self.allowed, t)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Choices:
    """States chosen with weights `p_S ~ exp((h_S - t |S|) / T)` in every block.

    Attributes:
        soft: `sum_B T log sum_S exp((h_S - t |S|) / T)`.
        hard: `sum_B max_S (h_S - t |S|)`.
        g: `[B, s]` mean of w: the slope of `soft` in q.
        count: `[B]` mean number of entries kept: minus its slope in t.
        C: `[B, s + 1, s + 1]` its second derivatives in q and t.
    """

    soft: float
    hard: float
    g: Array
    count: Array
    C: Array


@njit(cache=True, nogil=True)
def _borders(D, v, r):  # type: ignore[no-untyped-def]
    B, _, s = v.shape
    for b in range(B):
        for k in range(s):
            for m in range(1 << k, 1 << (k + 1)):
                left = D[b, k, k]
                p = m ^ (1 << k)
                while p:
                    dot = 0.0
                    top = _highest(p)
                    for i in range(top + 1):
                        dot += v[b, p, i] * D[b, i, k]
                    for i in range(top + 1):
                        v[b, m, i] -= v[b, p, i] * dot / r[b, p]
                    left -= dot * dot / r[b, p]
                    p ^= 1 << top
                v[b, m, k] = 1.0
                r[b, m] = left
                if not left > 0.0:
                    return False
    return True


@njit(cache=True, nogil=True, inline="always")
def _highest(m):  # type: ignore[no-untyped-def]
    k = 0
    while m >> (k + 1):
        k += 1
    return k


@njit(cache=True, nogil=True)
def _scores(q, v, r, allowed, t, h, score):  # type: ignore[no-untyped-def]
    """Fill one block's h and scores; the largest score."""
    s = len(q)
    h[0] = 0.0
    score[0] = 0.0 if allowed[0] else -np.inf
    top = score[0]
    for k in range(s):
        for m in range(1 << k, 1 << (k + 1)):
            dot = 0.0
            for i in range(k + 1):
                dot += v[m, i] * q[i]
            p = m ^ (1 << k)
            h[m] = h[p] + 0.5 * dot * dot / r[m]
            if allowed[m]:
                kept, rest = 0, m
                while rest:
                    rest &= rest - 1
                    kept += 1
                score[m] = h[m] - t * kept
                top = max(top, score[m])
            else:
                score[m] = -np.inf
    return top


@njit(cache=True, nogil=True)
def _worth(q, v, r, allowed, t, T):  # type: ignore[no-untyped-def]
    B, states = r.shape
    h, score = np.empty(states), np.empty(states)
    soft = hard = 0.0
    for b in range(B):
        top = _scores(q[b], v[b], r[b], allowed[b], t[b], h, score)
        total = 0.0
        for m in range(states):
            total += np.exp((score[m] - top) / T)
        soft += top + T * np.log(total)
        hard += top
    return soft, hard


@njit(cache=True, nogil=True)
def _weights(q, v, r, m, w):  # type: ignore[no-untyped-def]
    """Fill `w_S` of one state of one block."""
    w[:] = 0.0
    while m:
        k = _highest(m)
        dot = 0.0
        for i in range(k + 1):
            dot += v[m, i] * q[i]
        for i in range(k + 1):
            w[i] += v[m, i] * dot / r[m]
        m ^= 1 << k


@njit(cache=True, nogil=True)
def _choices(q, v, r, allowed, t, T, g, count, C):  # type: ignore[no-untyped-def]
    B, states, s = v.shape
    h, score, p, below, w = (
        np.empty(states),
        np.empty(states),
        np.empty(states),
        np.empty(states),
        np.empty(s),
    )
    soft = hard = 0.0
    for b in range(B):
        top = _scores(q[b], v[b], r[b], allowed[b], t[b], h, score)
        total = 0.0
        for m in range(states):
            p[m] = np.exp((score[m] - top) / T)
            total += p[m]
        soft += top + T * np.log(total)
        hard += top
        squares = 0.0
        below[:] = 0.0
        for m in range(states):
            p[m] /= total
            if p[m] < NEGLIGIBLE:
                continue
            below[m] = p[m]
            _weights(q[b], v[b], r[b], m, w)
            kept, rest = 0, m
            while rest:
                rest &= rest - 1
                kept += 1
            count[b] += p[m] * kept
            squares += p[m] * kept * kept
            for i in range(s):
                g[b, i] += p[m] * w[i]
                C[b, s, i] -= p[m] * kept * w[i] / T
                for j in range(i + 1):
                    C[b, i, j] += p[m] * w[i] * w[j] / T
        for m in range(states - 1, 0, -1):
            if below[m] == 0.0:
                continue
            k = _highest(m)
            below[m ^ (1 << k)] += below[m]
            share = below[m] / r[b, m]
            for i in range(k + 1):
                for j in range(i + 1):
                    C[b, i, j] += share * v[b, m, i] * v[b, m, j]
        for i in range(s):
            C[b, s, i] += count[b] * g[b, i] / T
            C[b, i, s] = C[b, s, i]
            for j in range(i + 1):
                C[b, i, j] -= g[b, i] * g[b, j] / T
                C[b, j, i] = C[b, i, j]
        C[b, s, s] = (squares - count[b] * count[b]) / T
    return soft, hard


@njit(cache=True, nogil=True)
def _best(q, error, D, lowest, v, r, allowed, t):  # type: ignore[no-untyped-def]
    """With w any approximation, `h_S <= q'w - 1/2 w'Dw + 1/2 |q - Dw|_S^2 / lowest`, and q may be off."""
    B, states, s = v.shape
    w = np.empty(s)
    gamma = 4.0 * (s + 8) * EPS
    taken = around = 0.0
    for b in range(B):
        most, largest = -np.inf, 0.0
        for m in range(states):
            if not allowed[b, m]:
                continue
            _weights(q[b], v[b], r[b], m, w)
            kept = 0
            h = size = residual = moved = 0.0
            for i in range(s):
                if not (m >> i) & 1:
                    continue
                kept += 1
                Dw = around_Dw = 0.0
                for j in range(s):
                    Dw += D[b, i, j] * w[j]
                    around_Dw += abs(D[b, i, j] * w[j])
                h += (q[b, i] - 0.5 * Dw) * w[i]
                size += abs(w[i]) * (abs(q[b, i]) + 0.5 * around_Dw)
                off = abs(q[b, i] - Dw) + gamma * (abs(q[b, i]) + around_Dw)
                residual += off * off
                moved += error[b, i] * error[b, i]
            if not np.isfinite(h + size + residual + moved):
                return np.inf, np.inf
            h = max(h, 0.0) + gamma * size + 0.5 * residual / lowest[b] * (1.0 + gamma)
            root = np.sqrt(h) + np.sqrt(0.5 * moved / lowest[b])
            h = root * root * (1.0 + 8.0 * EPS)
            most = max(most, h - t[b] * kept)
            largest = max(largest, h + abs(t[b]) * kept)
        taken += most
        around += largest
    return taken, around
