"""Sums over the states of groups, compiled: the states themselves, and what they add to a Newton step.

The variables of a group of s entries are its q, the lower half of its block D (diagonal first, as in
`solvers.bounds.groups.states.entries`), and the price of its pool, `v = s + s (s + 1) / 2 + 1` in all. Where
blocks are held, D is no variable; where groups are whole pools, which nothing has to be priced in, t is none.
"""

from __future__ import annotations

import numpy as np

from solvers.runtime.compiled import FLAGS, njit


@njit(cache=True, nogil=True, fastmath=FLAGS)
def open_states(D, q, chain, largest, inverse, w, h):
    """The states of groups, see `solvers.bounds.groups.states.States.of`; the sum of log det D, or -inf.

    Args:
        D: `[B, s, s]`.
        q: `[B, s]`.
        chain: `[C, 4]` of the states, see `solvers.bounds.groups.states.StateSet`.
        largest: `[K]` weights of log det.
        inverse: `[B, K, s, s]` zeros, filled.
        w: `[B, K, s]` zeros, filled.
        h: `[B, K]` zeros, filled.
    """
    B, s = q.shape
    K = h.shape[1]
    others = len(chain) + 1 - K
    passed, passed_w, passed_h = np.zeros((others, s, s)), np.zeros((others, s)), np.zeros(others)
    lasting = np.zeros(len(chain) + 1)
    logdet = 0.0
    x = np.empty(s)
    for b in range(B):
        for c in range(len(chain)):
            m, k, to = chain[c, 0], chain[c, 1], chain[c, 2]
            A, old = (inverse[b, m], w[b, m]) if m < K else (passed[m - K], passed_w[m - K])
            N, new = (inverse[b, to], w[b, to]) if to < K else (passed[to - K], passed_w[to - K])
            score = h[b, m] if m < K else passed_h[m - K]
            r = D[b, k, k]
            pull = q[b, k]
            for i in range(k):
                total = 0.0
                for j in range(k):
                    total += A[i, j] * D[b, j, k]
                x[i] = total
                r -= total * D[b, i, k]
                pull -= total * q[b, i]
            if not r > 0.0:
                return -np.inf
            x[k] = -1.0
            share = pull / r
            for i in range(k + 1):
                scaled = x[i] / r
                for j in range(k + 1):
                    N[i, j] = A[i, j] + scaled * x[j]
                new[i] = old[i] - share * x[i]
            score += 0.5 * share * pull
            if to < K:
                h[b, to] = score
            else:
                passed_h[to - K] = score
            if chain[c, 3]:
                lasting[to] = lasting[m] + np.log(r)
                if to < K:
                    logdet += largest[to] * lasting[to]
    return logdet


@njit(cache=True, nogil=True, fastmath=FLAGS)
def levels(scores, T, tau):
    """`[B]` into tau: levels with `sum_S T / (tau - score_S) = 1`, by Newton's method from below."""
    B, states = scores.shape
    for b in range(B):
        top = scores[b, 0]
        for m in range(1, states):
            top = max(top, scores[b, m])
        at = top + T
        for _ in range(60):
            first = second = 0.0
            for m in range(states):
                part = T / (at - scores[b, m])
                first += part
                second += part / (at - scores[b, m])
            step = (first - 1.0) / second
            at += step
            if abs(step) <= 1e-10 * T:
                break
        tau[b] = at


@njit(cache=True, nogil=True, fastmath=FLAGS)
def slopes(w, first, second, half, held, counts, out):
    """`[B, K, v]` gradients of the scores, into out.

    `h_S` has the slope w in q and `-1/2 w_i w_j` in every entry of D, so `-w_i w_j` in a pair of them; in the
    price, a score has minus the number of kept entries, `counts [K]`.
    """
    B, states, s = w.shape
    pairs = 0 if held else len(first)
    priced = out.shape[2] > s + pairs
    for b in range(B):
        for m in range(states):
            for i in range(s):
                out[b, m, i] = w[b, m, i]
            for e in range(pairs):
                out[b, m, s + e] = -half[e] * w[b, m, first[e]] * w[b, m, second[e]]
            if priced:
                out[b, m, s + pairs] = -counts[m]


@njit(cache=True, nogil=True, fastmath=FLAGS)
def family_sums(
    curves, rises, inverse, w, slope, slack, p, a, largest, T, first, second, half, held, lean, total, short
):
    """What the states of a family add to the matrix and the gradient of a Newton step, level eliminated.

    With weights `W_S = p_S / s_S` and `pull_S = a T / s_S`, the level of a group moves by
    `(lean . x - short) / total`, `lean = sum W slope`, `total = sum W`, `short = 1 - sum pull`. A group adds

        matrix    sum W slope slope' - lean lean' / total + sum_S p_S h_S''  (- T log det D)''
        gradient  sum pull slope + lean short / total                        (- T log det D)'

    with `h_S''` of `A = (D_SS)^-1`: A in q, `-A E w` across, `w'E A E'w` in D; log det D is that of the
    largest states, by weight.

    Args:
        curves: `[B, v, v]`, the lower halves filled.
        rises: `[B, v]`, filled.
        inverse: of the states.
        w: of the states.
        slope: `[B, K, v]`.
        slack: `[B, K]` s.
        p: `[B, K]` multipliers.
        a: weight of a state in the barrier.
        largest: `[K]` weights of log det.
        T: temperature.
        first: `[E]` rows of a block's entries, see `entries`.
        second: `[E]` their columns.
        half: `[E]` 1/2 on the diagonal.
        held: whether blocks are no variables.
        lean: `[B, v]`, filled.
        total: `[B]`, filled.
        short: `[B]`, filled.
    """
    B, states, s = w.shape
    v = slope.shape[2]
    pairs = 0 if held else len(first)
    packed, products = np.empty((states, len(first))), np.empty((states, len(first)))
    weighted = np.empty((states, v))
    place = np.empty((s, s), np.int64)
    for e in range(len(first)):
        place[first[e], second[e]] = place[second[e], first[e]] = e
    for b in range(B):
        curve, rise = curves[b], rises[b]
        total[b], short[b] = 0.0, 1.0
        lean[b] = 0.0
        rise[:] = 0.0
        lasting = np.zeros(len(first))
        for m in range(states):
            weight, pull = p[b, m] / slack[b, m], a * T / slack[b, m]
            total[b] += weight
            short[b] -= pull
            for k in range(v):
                x = slope[b, m, k]
                weighted[m, k] = weight * x
                lean[b, k] += weight * x
                rise[k] += pull * x
            for e in range(len(first)):
                i, j = first[e], second[e]
                packed[m, e] = p[b, m] * inverse[b, m, i, j]
                products[m, e] = w[b, m, i] * w[b, m, j]
                if largest[m] > 0.0:
                    products[m, e] += T * largest[m] / p[b, m] * inverse[b, m, i, j]
                    lasting[e] += largest[m] * inverse[b, m, i, j]
        curve[:] = np.dot(weighted.T, slope[b])
        for k in range(v):
            rise[k] += lean[b, k] * short[b] / total[b]
            for o in range(k + 1):
                curve[k, o] -= lean[b, k] * lean[b, o] / total[b]
        for e in range(len(first)):
            i, j = first[e], second[e]
            bend = 0.0
            for m in range(states):
                bend += packed[m, e]
            curve[max(i, j), min(i, j)] += bend
        if not held:
            both = np.dot(packed.T, products)
            across = np.zeros((s, s, s))
            for m in range(states):
                for e in range(len(first)):
                    i, j = first[e], second[e]
                    x = packed[m, e]
                    if x != 0.0:
                        for k in range(s):
                            across[i, j, k] += x * w[b, m, k]
            for e in range(len(first)):
                i, j = first[e], second[e]
                if i != j:
                    for k in range(s):
                        across[j, i, k] = across[i, j, k]
            for e in range(pairs):
                i, j, row = first[e], second[e], s + e
                rise[row] -= 2.0 * T * half[e] * lasting[e]
                for k in range(s):
                    curve[row, k] -= half[e] * (across[k, i, j] + across[k, j, i])
                for g in range(e + 1):
                    k, o = first[g], second[g]
                    # w'E A E'w: A_ik w_j w_o and its three likes; of log det, T A_ik A_jo
                    bend = both[place[i, k], place[j, o]] + both[place[i, o], place[j, k]]
                    bend += both[place[j, k], place[i, o]] + both[place[j, o], place[i, k]]
                    curve[row, s + g] += half[e] * half[g] * bend


@njit(cache=True, nogil=True, fastmath=FLAGS)
def scatter(A, columns, curves):
    """Add a family's part to a matrix.

    Args:
        A: `[N, N]`, lower half added to.
        columns: `[B, v]` places of the groups' variables.
        curves: `[B, v, v]` lower halves.
    """
    B, v = columns.shape
    for b in range(B):
        for k in range(v):
            row = columns[b, k]
            for o in range(k + 1):
                column = columns[b, o]
                if row >= column:
                    A[row, column] += curves[b, k, o]
                else:
                    A[column, row] += curves[b, k, o]


@njit(cache=True, nogil=True, fastmath=FLAGS)
def mirror(A):
    """Copy the upper half of a matrix to its lower one, block by block."""
    n = len(A)
    for first in range(0, n, 32):
        for left in range(0, first + 1, 32):
            for i in range(first, min(first + 32, n)):
                for j in range(left, min(left + 32, i)):
                    A[i, j] = A[j, i]
