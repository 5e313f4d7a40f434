"""A step down a quadratic model of a node's relaxation, within its bounds and its pools' sums; compiled."""

from __future__ import annotations

import numpy as np

from solvers.bounds.cholesky import backward, count_pools, factorise, forward, pool_basis
from solvers.runtime.compiled import FLAGS, njit

TINY = 1e-9
"""Shares below this are zero, above one minus this are one."""


@njit(cache=True, nogil=True, fastmath=FLAGS)
def descend(K, s, z, work, labels, p):
    """A descent step p for `-s'p + 1/2 p'Kp` with `0 <= z + p <= 1` and pool sums kept.

    First the bold way: the minimiser over the loose entries, all that leave the box put on its face
    at once, and again over the rest. If that lands nowhere lower, the careful one: a primal
    active-set method without release, that stops at the first face on the way and fixes the entries
    there. The caller picks up what a release would have changed at its next step.
    """
    w = len(work)
    L = np.empty((w, w))
    x = np.empty(w)
    for bold in (True, False):
        loose = np.arange(w)
        for i in range(w):
            p[i] = 0.0
        done = False
        while len(loose) > 1:
            a = len(loose)
            _minimise(K, s, p, work, labels, loose, L, x)
            reach, out = 1.0, 0
            for i in range(a):
                at = z[work[loose[i]]] + p[loose[i]]
                if x[i] < 0.0 and at + x[i] < 0.0:
                    reach = min(reach, -at / x[i])
                    out += 1
                elif x[i] > 0.0 and at + x[i] > 1.0:
                    reach = min(reach, (1.0 - at) / x[i])
                    out += 1
            kept = np.ones(a, np.bool_)
            for i in range(a):
                k = loose[i]
                at = z[work[k]] + p[k]
                if bold and out > 0:
                    if at + x[i] < 0.0 or at + x[i] > 1.0:
                        p[k] = -z[work[k]] if x[i] < 0.0 else 1.0 - z[work[k]]
                        kept[i] = False
                else:
                    p[k] += reach * x[i]
                    at = z[work[k]] + p[k]
                    if (x[i] < 0.0 and at <= TINY) or (x[i] > 0.0 and at >= 1.0 - TINY):
                        kept[i] = False
            done = reach >= 1.0
            if done or kept.all():
                break
            loose = loose[kept]
        if not bold or (done and _lowers(K, s, p, work, labels)):
            return


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _lowers(K, s, p, work, labels):
    """Whether p keeps the pools' sums and lowers the model."""
    w = len(work)
    model, total, size = 0.0, 0.0, 0.0
    for i in range(w):
        row = 0.0
        for j in range(w):
            row += K[i, j] * p[j]
        model += p[i] * (0.5 * row - s[work[i]])
        total += p[i]
        size += abs(p[i])
        if (i + 1 == w or labels[work[i + 1]] != labels[work[i]]) and abs(total) > 1e-12 * (1.0 + size):
            return False
        if i + 1 < w and labels[work[i + 1]] != labels[work[i]]:
            total = size = 0.0
    return model < 0.0


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _minimise(K, s, p, work, labels, loose, L, x):
    """The move x of the loose entries from p to the model's minimiser, pool sums brought back to zero."""
    a, w = len(loose), len(work)
    kinds = labels[work[loose]]
    for i in range(a):
        row = K[loose[i]]
        for j in range(i):
            L[i, j] = row[loose[j]]
        L[i, i] = row[loose[i]] * (1.0 + 1e-10) + 1e-300
        x[i] = s[work[loose[i]]]
        for k in range(w):
            x[i] -= row[k] * p[k]
    factorise(L, a, 1e-12)
    forward(L, x, a)
    lack = np.zeros(count_pools(kinds))
    t = 0
    for i in range(a):
        if i == 0 or kinds[i] != kinds[i - 1]:
            for k in range(w):
                if labels[work[k]] == kinds[i]:
                    lack[t] -= p[k]
            t += 1
    V = pool_basis(L, kinds, lack)
    for t in range(len(V)):
        dot = -lack[t]
        for i in range(a):
            dot += V[t, i] * x[i]
        for i in range(a):
            x[i] -= dot * V[t, i]
    backward(L, x, a)
