"""One node's relaxation as a smooth convex function of the kept shares z, compiled.

Both variants are `min f(z)` over `0 <= z <= 1`, `sum_pool z = keep`, with gradient `-s`:

    joint      f(z) = constant - 1/2 sum b' (R + diag(d / z))^-1 b,   s_i = sum q_i^2 / (2 d_i)
               q = b - R v,  v = (R + diag(d / z))^-1 b,
               f'' = sum (q_i q_j) / (d_i d_j) N_ij,  N = R - R_A (R_AA + diag(d/z)_A)^-1 R_A',  A = {z > 0}
    selection  f(z) = 1/2 x'Rx + (d/2 - c)'x,  x = 1 - z,  s = R x + d/2 - c,  f'' = R

At a binary z, f is the exact cost of the mask. The bound LB(u) is evaluated from `q = b - R u` as
computed, whatever u is, so an inexact solve weakens it but never makes it wrong.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.cholesky import add_gram, backward, factorise, forward, forward_rows
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.runtime.compiled import FLAGS, njit

EPS = float(np.finfo(np.float64).eps)
LEAST = 1e-18
"""Least pivot, as a share of its diagonal entry, where rounding would leave none."""


class Model(NamedTuple):
    """A block at a split, as compiled code takes it.

    Attributes:
        refit: joint, or selection.
        R: `[g, n, n]`, `H - diag(d)`.
        d: `[g, n]`.
        B: `[g, n, c]`.
        constant: cost of keeping nothing (joint), or what fixed entries cost (selection).
        labels: `[n]` pool of every entry, never falling.
    """

    refit: bool
    R: Array
    d: Array
    B: Array
    constant: float
    labels: NDArray[np.int64]


def model_of(block: Block, d: Array) -> Model:
    """A block at the split d `[g, n]`."""
    R = np.stack([H - np.diag(diagonal) for H, diagonal in zip(block.H, d, strict=True)])
    B = np.ascontiguousarray(block.B)
    return Model(block.refit, R, np.ascontiguousarray(d), B, float(block.constant), block.labels)


@njit(cache=True, nogil=True, fastmath=FLAGS)
def factor(R, d, z, active, L):
    """Cholesky factor of `(R + diag(d / z))` on the active entries, into `L[:a, :a]`."""
    a = len(active)
    for i in range(a):
        p, row, out = active[i], R[active[i]], L[i]
        for j in range(i):
            out[j] = row[active[j]]
        out[i] = row[p] + d[p] / z[p]
    factorise(L, a, LEAST)


@njit(cache=True, nogil=True, fastmath=FLAGS)
def evaluate(model, z, L, q, s):
    """`(f(z), base, rounding)`, with scores into s and residuals into q.

    `LB(u) = base - sum over kept and best free s - rounding`. L `[g, n, n]` keeps the factors.

    The rounding is that of the sums over R, by `sum_k |R_ik v_k| <= R_ii^1/2 sum_k R_kk^1/2 |v_k|` for
    semidefinite R; a score above the constant is not taken, or the bound is negative anyway. What it
    cost to form B and the constant is not in it: see `formation`.
    """
    refit, R, d, B, constant, _ = model
    groups, n, columns = B.shape
    s[:] = 0.0
    if not refit:
        quadratic = 0.0
        linear = 0.0
        everything = 0.0
        size = 0.0
        spread = 0.0
        reach = 0.0
        for i in range(n):
            root = np.sqrt(abs(R[0, i, i]) + abs(d[0, i]))
            spread += root
            reach += root * (1.0 - z[i])
            total = 0.0
            for k in range(n):
                total += R[0, i, k] * (1.0 - z[k])
            shift = 0.5 * d[0, i] - B[0, i, 0]
            quadratic += 0.5 * (1.0 - z[i]) * total
            linear += shift * (1.0 - z[i])
            s[i] = total + shift
            everything += s[i]
            size += abs(s[i]) + abs(total) + abs(shift)
        size += spread * reach
        size += abs(quadratic) + abs(constant)
        return constant + quadratic + linear, constant + everything - quadratic, 4.0 * (n + 8) * EPS * size
    active = np.flatnonzero(z > 0.0)
    a = len(active)
    v = np.empty(a)
    residual = np.empty(n)
    inside = 0.0
    quadratic = 0.0
    spread = 0.0
    for g in range(groups):
        Rg = R[g]
        factor(Rg, d[g], z, active, L[g])
        for c in range(columns):
            for i in range(a):
                v[i] = B[g, active[i], c]
            forward(L[g], v, a)
            for i in range(a):
                inside += v[i] * v[i]
            backward(L[g], v, a)
            for i in range(n):
                residual[i] = 0.0
            reach = 0.0
            for k in range(a):
                row = Rg[active[k]]
                vk = v[k]
                reach += np.sqrt(row[active[k]] + d[g, active[k]] / z[active[k]]) * abs(vk)
                for i in range(n):
                    residual[i] += row[i] * vk
            for k in range(a):
                quadratic += 0.5 * v[k] * residual[active[k]]
            spread += reach * reach
            for i in range(n):
                r = B[g, i, c] - residual[i]
                q[g, i, c] = r
                score = r * r / (2.0 * d[g, i])
                s[i] += score
                slope = abs(r) / d[g, i] if score < constant else np.sqrt(2.0 * constant / d[g, i])
                spread += slope * (np.sqrt(Rg[i, i]) * reach + abs(B[g, i, c]))
    size = 0.0
    for i in range(n):
        size += s[i]
    rounding = 4.0 * (n + 8) * EPS * (constant + spread + abs(quadratic) + size)
    return constant - 0.5 * inside, constant - quadratic, rounding


def formation(block: Block, d: Array) -> float:
    """What rounding in a block's B and constant, or a selection's A and c, can add to a bound.

    Joint: `sum_i |q_i| e_i / d_i` with `e_i` the rounding of `(H w)_i`, and `|q_i| <= (2 d_i constant)^1/2`
    for every score that is taken, or the bound would be negative. Selection: that of a product of three in
    every entry, summed over rows.
    """
    if not block.refit:
        return (len(block.rows) + 4) * EPS * block.scale
    total = 0.0
    for H, W, e in zip(block.H, block.W, d, strict=True):
        size = np.abs(H) @ np.abs(W)
        total += float((np.sqrt(2.0 * block.constant / e) @ size).sum() + 0.5 * (np.abs(W) * size).sum())
    return 4.0 * (block.n + 8) * EPS * total


@njit(cache=True, nogil=True, fastmath=FLAGS)
def curvature(model, z, L, q, work, K):
    """`f''` on the entries `work`, into `K[:w, :w]`, from the factors that `evaluate` left in L."""
    w, R, d = len(work), model.R, model.d
    if not model.refit:
        for i in range(w):
            for j in range(w):
                K[i, j] = R[0, work[i], work[j]]
        return
    groups, _, columns = q.shape
    active = np.flatnonzero(z > 0.0)
    a = len(active)
    C, G = np.empty((a, w)), np.empty((w, w))
    for i in range(w):
        for j in range(w):
            K[i, j] = 0.0
    for g in range(groups):
        for k in range(a):
            row = R[g, active[k]]
            for i in range(w):
                C[k, i] = row[work[i]]
        forward_rows(L[g], C, a)
        for i in range(w):
            for j in range(i + 1):
                G[i, j] = 0.0
        add_gram(C, a, False, G)
        for i in range(w):
            row = R[g, work[i]]
            for j in range(i + 1):
                product = 0.0
                for c in range(columns):
                    product += q[g, work[i], c] * q[g, work[j], c]
                K[i, j] += (row[work[j]] - G[i, j]) * (product / (d[g, work[i]] * d[g, work[j]]))
    for i in range(w):
        for j in range(i):
            K[j, i] = K[i, j]


@njit(cache=True, nogil=True)
def best_sum(s, fix, labels, need, inner, outer):
    """Sum of s over kept entries and each pool's `need` best free ones.

    `inner[p]` and `outer[p]` become the worst score taken and the best one left in pool p.
    """
    n = len(s)
    total = 0.0
    scratch = np.empty(n)
    start = 0
    for p in range(len(need)):
        count = 0
        i = start
        while i < n and labels[i] == p:
            if fix[i] == 0:
                scratch[count] = s[i]
                count += 1
            elif fix[i] > 0:
                total += s[i]
            i += 1
        start = i
        take = need[p]
        inner[p], outer[p] = np.inf, -np.inf
        if take > 0 and count > 0:
            chosen = np.sort(scratch[:count])
            for k in range(count - take, count):
                total += chosen[k]
            inner[p] = chosen[count - take]
            if count > take:
                outer[p] = chosen[count - take - 1]
        elif count > 0:
            outer[p] = scratch[:count].max()
    return total
