"""A better split for a subtree, compiled: the fixed entries taken out, then Newton steps on d."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numba import njit

from solvers.blocks import Block
from solvers.bounds.newton import relax
from solvers.bounds.oracle import EPS, FLAGS, Model, backward, curvature, evaluate, forward
from solvers.hessian import Array


def elimination(block: Block, d: Array, enough: float) -> float:
    """What rounding in `restrict` can add to a bound.

    Elimination is backward stable: what comes out belongs to `H + E`, `|E_ij| <= c n eps (H_ii H_jj)^1/2`
    (Higham 2002, theorem 10.3), and moves the cost of a mask with weights x by at most `1/2 x'Ex`, where

        x'Ex <= c n eps (sum_i H_ii^1/2 |x_i|)^2 <= c n eps min(sum_i H_ii / d_i, tr H / lambda_min) x'Hx

    and `1/2 x'Hx <= constant`. Selection: sums of entries of A and c.

    Args:
        block: the block, of one curvature.
        d: `[n]` a valid split of it.
        enough: an answer this small need not be sharper.
    """
    unit = 8.0 * (block.n + 8) * EPS
    if not block.refit:
        return unit * block.scale
    diagonal = np.diagonal(block.H[0])
    slack = unit * float((diagonal / d).sum()) * block.constant
    if slack <= enough:
        return slack
    least = float(scipy.linalg.eigvalsh(block.H[0], subset_by_index=[0, 0])[0])
    return min(slack, unit * float(diagonal.sum()) / max(least, 1e-300) * block.constant)


@njit(cache=True, nogil=True, fastmath=FLAGS)
def restrict(refit, H, B, constant, labels, keep, fix):
    """What is left of a block when some entries are fixed: `(free, H, B, constant, labels, need)`.

    Joint: pruned entries leave, and kept ones are eliminated by a Schur complement,
    `H_FF - H_FK H_KK^-1 H_KF`, `b_F - H_FK H_KK^-1 b_K`, `constant - 1/2 b_K' H_KK^-1 b_K`.
    Selection: kept entries leave, and pruned ones become `c_F - A_FP 1` and a constant.
    """
    groups, n, columns = B.shape
    free = np.flatnonzero(fix == 0)
    f = len(free)
    gone = np.flatnonzero(fix > 0) if refit else np.flatnonzero(fix < 0)
    need = keep.copy()
    for i in range(n):
        if fix[i] > 0:
            need[labels[i]] -= 1
    smaller = np.empty((groups, f, f))
    right = np.empty((groups, f, columns))
    rest = constant
    for g in range(groups):
        if refit:
            order = np.concatenate((gone, free))
            a = len(order)
            A = np.empty((a, a + columns))
            for i in range(a):
                for j in range(a):
                    A[i, j] = H[g, order[i], order[j]]
                for c in range(columns):
                    A[i, a + c] = B[g, order[i], c]
            for k in range(len(gone)):
                pivot = 1.0 / A[k, k]
                for c in range(columns):
                    rest -= 0.5 * A[k, a + c] * A[k, a + c] * pivot
                for i in range(k + 1, a):
                    share = A[k, i] * pivot
                    if share != 0.0:
                        for j in range(i, a + columns):
                            A[i, j] -= share * A[k, j]
            start = len(gone)
            for i in range(f):
                for j in range(i, f):
                    smaller[g, i, j] = A[start + i, start + j]
                    smaller[g, j, i] = A[start + i, start + j]
                for c in range(columns):
                    right[g, i, c] = A[start + i, a + c]
        else:
            for i in range(f):
                for j in range(f):
                    smaller[g, i, j] = H[g, free[i], free[j]]
                right[g, i, 0] = B[g, free[i], 0]
                for j in gone:
                    right[g, i, 0] -= H[g, free[i], j]
            for i in gone:
                rest -= B[g, i, 0]
                for j in gone:
                    rest += 0.5 * H[g, i, j]
    return free, smaller, right, rest, labels[free], need


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _cholesky(A, n):
    """Factor A in place (lower, diagonal of reciprocals); whether it is positive definite."""
    for i in range(n):
        for j in range(i):
            total = A[i, j]
            for k in range(j):
                total -= A[i, k] * A[j, k]
            A[i, j] = total * A[j, j]
        total = A[i, i]
        for k in range(i):
            total -= A[i, k] * A[i, k]
        if not total > 0.0:
            return False
        A[i, i] = 1.0 / np.sqrt(total)
    return True


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _inverse(L, n):
    """`(L L')^-1` from a factor with reciprocals on its diagonal."""
    half = np.zeros((n, n))
    for i in range(n):
        for k in range(i):
            x = L[i, k]
            for j in range(k + 1):
                half[i, j] -= x * half[k, j]
        half[i, i] += 1.0
        for j in range(i + 1):
            half[i, j] *= L[i, i]
    out = np.zeros((n, n))
    for k in range(n):
        for i in range(k + 1):
            x = half[k, i]
            for j in range(i + 1):
                out[i, j] += x * half[k, j]
    for i in range(n):
        for j in range(i):
            out[j, i] = out[i, j]
    return out


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _definite(H, d, margin, work):
    """Factor `H - diag(d) - margin` into work; whether it is positive definite."""
    n = len(d)
    for i in range(n):
        for j in range(i):
            work[i, j] = H[i, j]
        work[i, i] = H[i, i] - d[i] - margin
    return _cholesky(work, n)


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _response(model, z, L, q, mu, S):
    """`(A, rhs)` of Newton's step in d, z held: see `ascent`."""
    n, refit, R, d = len(z), model.refit, model.R[0], model.d[0]
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
    inner = _inverse(L[0], len(active))
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
        for t in active:
            x = R[i, t]
            for j in range(n):
                C[k, j] -= x * N[t, j]
        C[k, i] += 1.0
        for j in range(n):
            C[k, j] *= P[i, j] * (1.0 - z[j])
        C[k, i] -= 0.5 * P[i, i]
    return A, rhs, loose, C


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _ascent(model, z, L, q, S, mu, K):
    """Newton's step in d for the bound plus `mu (log det(H - diag d) + sum log d)`; zero if it fails.

    With `a = q / d`, `P = a a'`, `N = (R + diag(d/z))^-1` and `E = 1 - R N`, the bound `min_z phi(z, d)`
    has the gradient `1/2 z_i (1 - z_i) P_ii` and, z following d, the second derivative

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
        if not _cholesky(T, w):
            return np.zeros(n)
        pools = 1
        for k in range(1, w):
            pools += labels[loose[k]] != labels[loose[k - 1]]
        V = np.zeros((pools, w))
        t = 0
        for k in range(w):
            t += k > 0 and labels[loose[k]] != labels[loose[k - 1]]
            V[t, k] = 1.0
        for i in range(w):
            for k in range(i):
                x = T[i, k]
                for j in range(n):
                    C[i, j] -= x * C[k, j]
            for j in range(n):
                C[i, j] *= T[i, i]
        lean = np.empty(n)
        for t in range(pools):
            forward(T, V[t], w)
            for u in range(t):
                dot = 0.0
                for i in range(w):
                    dot += V[t, i] * V[u, i]
                for i in range(w):
                    V[t, i] -= dot * V[u, i]
            norm = 0.0
            for i in range(w):
                norm += V[t, i] * V[t, i]
            norm = 1.0 / np.sqrt(max(norm, 1e-300))
            lean[:] = 0.0
            for i in range(w):
                V[t, i] *= norm
                for j in range(n):
                    lean[j] += V[t, i] * C[i, j]
            for i in range(w):
                for j in range(n):
                    C[i, j] -= V[t, i] * lean[j]
        for i in range(w):
            for j in range(n):
                x = C[i, j]
                if x != 0.0:
                    for k in range(j + 1):
                        A[j, k] += x * C[i, k]
    top = 0.0
    for i in range(n):
        top = max(top, A[i, i])
    for i in range(n):
        A[i, i] += 1e-14 * top
    if not _cholesky(A, n):
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
def improve(refit, H, B, constant, labels, need, d, z, cutoff, steps, shrink, share, found, halt):
    """Newton steps on the split of a restricted block: `(bound, d)` of the best one met.

    A primal barrier method from a neighbour's d: few steps gain most of what a new split can.

    Args:
        refit: as in `Model`.
        H: `[1, n, n]`.
        B: `[1, n, c]`.
        constant: as in `Model`.
        labels: as in `Model`.
        need: `[pools]` entries to keep.
        d: `[n]` a split to start from, valid for H.
        z: `[n]` shares to start from.
        cutoff: a bound past it ends the work.
        steps: Newton steps at most.
        shrink: how far to pull d back from the boundary first.
        share: of the distance to the cutoff, that the last barrier may cost.
        found: `[2, n]` takes the best bound's scores and shares.
        halt: `[1]` set to end the work soon.
    """
    n = len(d)
    fix = np.zeros(n, np.int8)
    L = np.empty((1, n, n))
    q = np.empty(B.shape)
    s, kept = np.empty(n), np.empty((2, n))
    K, work = np.empty((n, n)), np.empty((n, n))
    best, best_d = -np.inf, d.copy()
    d, z = d.copy(), z.copy()
    size = 0.0
    for i in range(n):
        d[i] -= shrink * (abs(d[i]) + (0.0 if refit else 0.01 * H[0, i, i]))
        size += H[0, i, i] + abs(d[i])
    margin = 8.0 * (n + 8) * EPS * size
    if not _definite(H[0], d, margin, work):
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
        evaluate(model, z, L, q, s)
        S = _inverse(work, n)
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
            if _definite(H[0], d + reach / 0.95 * move, margin, work):
                inside = True
                break
            reach *= 0.8
        if not inside:
            break
        d = d + reach * move
        if not _definite(H[0], d, margin, work):
            break
    return best, best_d
