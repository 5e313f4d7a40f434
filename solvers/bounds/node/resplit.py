"""A better split for a subtree, compiled: a few Newton steps on d from that of a neighbour."""

from __future__ import annotations

import numpy as np

from solvers.bounds.cholesky import (
    add_gram,
    backward,
    count_pools,
    factorise,
    factorise_shifted,
    forward,
    forward_rows,
    inverse,
    pool_basis,
    project_rows,
)
from solvers.bounds.node.newton import relax
from solvers.bounds.node.oracle import EPS, Model, curvature
from solvers.runtime.compiled import FLAGS, njit


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _response(model, z, L, q, mu, S):
    """`(A, rhs)` of Newton's step in d, z held: see `ascent`."""
    n, refit, d = len(z), model.refit, model.d[0]
    A = np.empty((n, n))
    rhs = np.empty(n)
    for i in range(n):
        for j in range(n):
            A[i, j] = mu * S[i, j] * S[i, j]
        rhs[i] = -mu * S[i, i]
    loose = np.flatnonzero((z > 0.0) & (z < 1.0))
    C = np.zeros((len(loose), n))
    if not refit:
        for k, i in enumerate(loose):
            C[k, i] = z[i] - 0.5
        for i in range(n):
            rhs[i] += 0.5 * z[i] * (1.0 - z[i])
        return A, rhs, loose, C
    active = np.flatnonzero(z > 0.0)
    inner = inverse(L[0], len(active))
    N = np.zeros((n, n))
    for i in range(len(active)):
        for j in range(len(active)):
            N[active[i], active[j]] = inner[i, j]
    slope = np.empty((n, q.shape[2]))
    for i in range(n):
        for c in range(q.shape[2]):
            slope[i, c] = q[0, i, c] / d[i]
    P = slope @ slope.T
    for i in range(n):
        A[i, i] += mu / (d[i] * d[i])
        rhs[i] += mu / d[i] + 0.5 * z[i] * (1.0 - z[i]) * P[i, i]
        for j in range(n):
            A[i, j] += (1.0 - z[i]) * (1.0 - z[j]) * N[i, j] * P[i, j]
    for k, i in enumerate(loose):
        for j in range(n):
            C[k, j] = d[i] / z[i] * N[i, j] * P[i, j] * (1.0 - z[j])
        C[k, i] -= 0.5 * P[i, i]
    return A, rhs, loose, C


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _ascent(model, z, L, q, S, mu, K):
    """Newton's step in d for the bound plus `mu (log det(H - diag d) + sum log d)`; zero if it fails.

    With `a = q / d`, `P = a a'`, `N = (R + diag(d/z))^-1` and `E = 1 - R N`, which is `diag(d/z) N` where
    z is positive, the bound `min_z phi(z, d)` has the gradient `1/2 z_i (1 - z_i) P_ii` and, z following d,
    the second derivative

        -(1 - z_i) (1 - z_j) N_ij P_ij - C' K^-1 C,   C_ij = E_ij P_ij (1 - z_j) - 1/2 P_ii [i = j]

    on the fractional z, with `K = f''` held to the pools' sums. Selection: gradient
    `1/2 z_i (1 - z_i)`, second derivative `-C' K^-1 C` with `C = diag(z - 1/2)`, and no `log d`.
    """
    n, labels = len(z), model.labels
    A, rhs, loose, C = _response(model, z, L, q, mu, S)
    w = len(loose)
    if w > 0:
        curvature(model, z, L, q, loose, K)
        T = K[:w, :w].copy()
        top = 0.0
        for i in range(w):
            top = max(top, T[i, i])
        for i in range(w):
            T[i, i] += 1e-8 * top + 1e-300
        if not factorise(T, w):
            return np.zeros(n)
        kinds = labels[loose]
        forward_rows(T, C, w)
        project_rows(pool_basis(T, kinds, np.zeros(count_pools(kinds))), C)
        add_gram(C, w, False, A)
    for i in range(n):
        A[i, i] += 1e-14 * A[i, i]
    if not factorise(A, n):
        return np.zeros(n)
    forward(A, rhs, n)
    backward(A, rhs, n)
    return rhs


@njit(cache=True, nogil=True)
def _first_weight(model, z, q, S):
    """The barrier weight at which d would be most nearly optimal, by least squares over its entries."""
    top = bottom = 0.0
    for i in range(len(z)):
        d = model.d[0, i]
        gradient, pull = 0.5 * z[i] * (1.0 - z[i]), S[i, i]
        if model.refit:
            total = 0.0
            for c in range(q.shape[2]):
                total += q[0, i, c] * q[0, i, c]
            gradient *= total / (d * d)
            pull -= 1.0 / d
        top += gradient * d * d * pull
        bottom += pull * pull * d * d
    return top / max(bottom, 1e-300)


@njit(cache=True, nogil=True)
def improve(part, d, z, cutoff, steps, shrink, share, found, halt):
    """Newton steps on the split of a block: `(bound, d)` of the best one met.

    A primal barrier method from a neighbour's d: few steps gain most of what a new split can.

    Args:
        part: the block, of one curvature.
        d: `[n]` a split to start from, valid for H.
        z: `[n]` shares to start from.
        cutoff: a bound past it ends the work.
        steps: Newton steps at most.
        shrink: how far to pull d back from the boundary first.
        share: of the distance to the cutoff, that the last barrier may cost.
        found: `[2, n]` takes the best bound's scores and shares; no scores and z where there is no bound.
        halt: `[1]` set to end the work soon.
    """
    refit, H, B, constant, labels, need = part
    n = len(d)
    fix = np.zeros(n, np.int8)
    L = np.empty((1, n, n))
    q = np.empty(B.shape)
    s, kept = np.empty(n), np.empty((2, n))
    K, work = np.empty((n, n)), np.empty((n, n))
    best, best_d = -np.inf, d.copy()
    found[0], found[1] = 0.0, z
    d, z = d.copy(), z.copy()
    margin = np.empty(n)
    for i in range(n):
        d[i] -= shrink * (abs(d[i]) + (0.0 if refit else 0.01 * H[0, i, i]))
        margin[i] = 8.0 * (n + 8) * EPS * n * (H[0, i, i] + abs(d[i]))
    if not factorise_shifted(H[0], d + margin, work):
        return best, best_d
    mu = 0.0
    for step in range(steps + 1):
        R = H.copy()
        for i in range(n):
            R[0, i, i] -= d[i]
        model = Model(refit, R, d.copy().reshape(1, n), B, constant, labels)
        bound, _, _ = relax(
            model, need.copy(), fix, z, cutoff, 0.05, 25 if step == steps else 1, L, q, s, kept, halt
        )
        if bound > best:
            best = bound
            best_d[:] = d
            found[:] = kept
        if bound >= cutoff or step == steps or halt[0]:
            break
        S = inverse(work, n)
        least = share * (cutoff - bound) / n
        if step == 0:
            mu = 0.5 * _first_weight(model, z, q, S)
            if not refit:
                mu = min(mu, 4.0 * least)
        mu = max(least, mu if step == 0 else 0.2 * mu)
        move = _ascent(model, z, L, q, S, mu, K)
        reach = 1.0
        if refit:
            for i in range(n):
                if move[i] < 0.0:
                    reach = min(reach, -0.9 * d[i] / move[i])
        inside = False
        for _ in range(30):
            if factorise_shifted(H[0], d + reach / 0.95 * move + margin, work):
                inside = True
                break
            reach *= 0.8
        if not inside:
            break
        d = d + reach * move
        if not factorise_shifted(H[0], d + margin, work):
            break
    return best, best_d
