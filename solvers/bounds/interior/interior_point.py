"""The saddle point of a block's relaxation over (z, d), by a primal-dual interior-point method, compiled.

`max_d min_z phi(z, d)` over `H - diag(d) >= 0`, `0 <= z <= 1` and the pools' sums of z is the semidefinite
bound, and its d the best split. A Newton step solves, with `S = (H - diag d)^-1`, its multiplier `X` in the
HKM form, and `K = phi_zz + L_low / z + L_high / (1 - z)`,

    K dz + phi_zd dd - E' dt = -(phi_z - mu/z + mu/(1 - z) - E't),   E dz = 0,
    (X o S + L_d / d - phi_dd) dd - phi_dz dz = phi_d + mu/d - mu diag(S),

where E is the membership in pools and t their multipliers. It takes one thread, and per step some 2 ms at
160 entries and 150 ms at 784.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from solvers.bounds.cholesky import (
    backward,
    count_pools,
    factorise,
    factorise_shifted,
    forward,
    forward_rows,
    half_inverse,
    inverse,
    pool_basis,
    project,
    project_rows,
)
from solvers.bounds.interior.saddle import Data, Derivatives, joint, selection
from solvers.hessian import Array
from solvers.runtime.compiled import FLAGS, njit

SHORTEN = 0.9
"""Share of the way to the boundary that a step may go."""
STALL = 1e-6
"""A step shorter than this ends the iterations."""
NARROW = 160
"""Entries up to which all steps are made in one compiled call, and limits are not polled in between."""
EDGE = 1e-15
"""Least distance of a share from its ends: a share that rounds to one would leave nothing to divide by."""


class Iterate(NamedTuple):
    """A point, or a step from one.

    Attributes:
        z: `[n]` shares, within (0, 1).
        d: `[n]` split.
        low: `[n]` multipliers of `z >= 0`.
        high: `[n]` multipliers of `z <= 1`.
        floor: `[n]` multipliers of `d >= 0`; not used by selections.
        X: `[n, n]` multiplier of `H - diag(d) >= 0`.
    """

    z: Array
    d: Array
    low: Array
    high: Array
    floor: Array
    X: Array


@njit(cache=True, nogil=True)
def _iterate(n):
    return Iterate(np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.zeros(n), np.empty((n, n)))


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _first_split(data, d, work):
    """Set d strictly feasible: all alike below zero (selection), or a share of `1 / [H^-1]_ii`; factor there.

    With `C_ij = N_ij / (N_ii N_jj)^1/2`, `N = H^-1`, `d_i = t / N_ii` is feasible for t below one over the
    largest eigenvalue of C, which no row's sum of absolute values is below.
    """
    H, n = data.H, len(d)
    if not data.refit:
        size = 0.0
        for i in range(n):
            size += abs(H[i, i])
        d[:] = -0.1 * max(size / n, 1e-6)
        while not factorise_shifted(H, d, work):
            d *= 2.0
        return
    d[:] = 0.0
    factorise_shifted(H, d, work)
    N = inverse(work, n)
    most = 0.0
    for i in range(n):
        total = 0.0
        for j in range(n):
            total += abs(N[i, j]) / np.sqrt(N[j, j])
        most = max(most, total / np.sqrt(N[i, i]))
    for i in range(n):
        d[i] = 0.8 / (most * N[i, i])
    while not factorise_shifted(H, d, work):
        d *= 0.5


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _direction(data, at, S, mu, phi, step):
    """The Newton step; False where rounding leaves none.

    With `K = LL'`, V an orthonormal basis of `L^-1 E'` and `Y = (I - V'V) L^-1 phi_zd`, dz is eliminated:
    `(X o S + L_d / d - phi_dd + Y'Y) dd = phi_d + mu/d - mu diag(S) + Y'y`.
    """
    refit, n = data.refit, len(at.z)
    K, A = phi.zz, phi.dd
    for i in range(n):
        K[i, i] += at.low[i] / at.z[i] + at.high[i] / (1.0 - at.z[i])
    if not factorise(K, n):
        return False
    V = pool_basis(K, data.labels, np.zeros(count_pools(data.labels)))
    if refit:
        Y = phi.zd.copy()
        forward_rows(K, Y, n)
    else:
        Y = half_inverse(K, n)
        for i in range(n):
            for j in range(i + 1):
                Y[i, j] *= phi.zd[j, j]
    project_rows(V, Y)
    y = np.empty(n)
    for i in range(n):
        y[i] = mu / at.z[i] - mu / (1.0 - at.z[i]) - phi.z[i]
    forward(K, y, n)
    project(V, y)
    A += Y.T @ Y
    for i in range(n):
        step.d[i] = phi.d[i] - mu * S[i, i]
        if refit:
            A[i, i] += at.floor[i] / at.d[i]
            step.d[i] += mu / at.d[i]
    A += at.X * S
    step.d[:] += y @ Y
    if not factorise(A, n):
        return False
    forward(A, step.d, n)
    backward(A, step.d, n)
    step.z[:] = y - Y @ step.d
    backward(K, step.z, n)
    for i in range(n):
        step.low[i] = (mu - at.low[i] * step.z[i]) / at.z[i] - at.low[i]
        step.high[i] = (mu + at.high[i] * step.z[i]) / (1.0 - at.z[i]) - at.high[i]
        if refit:
            step.floor[i] = (mu - at.floor[i] * step.d[i]) / at.d[i] - at.floor[i]
    A[:] = step.d.reshape((n, 1)) * S
    twist = at.X @ A
    step.X[:] = mu * S - at.X + 0.5 * (twist + twist.T)
    return True


@njit(cache=True, nogil=True)
def _reach(x, dx, a):
    """The part of a step a that keeps every `x + a dx` well positive."""
    for i in range(len(x)):
        if dx[i] < 0.0:
            a = min(a, -SHORTEN * x[i] / dx[i])
    return a


@njit(cache=True, nogil=True)
def _length(data, at, step, work):
    """How far a step may go, all of it inside; `H - diag(d)` there is factored into work. 0 if nowhere."""
    a = _reach(at.z, step.z, _reach(1.0 - at.z, -step.z, 1.0))
    a = _reach(at.low, step.low, _reach(at.high, step.high, a))
    if data.refit:
        a = _reach(at.floor, step.floor, _reach(at.d, step.d, a))
    zero = np.zeros(len(at.z))
    for _ in range(60):
        if factorise_shifted(at.X + a / SHORTEN * step.X, zero, work) and factorise_shifted(
            data.H, at.d + a / SHORTEN * step.d, work
        ):
            return a if factorise_shifted(data.H, at.d + a * step.d, work) else 0.0
        a *= 0.75
    return 0.0


@njit(cache=True, nogil=True, fastmath=FLAGS)
def _gap(data, at):
    """The complementarity gap."""
    n = len(at.z)
    gap = 0.0
    for i in range(n):
        gap += at.low[i] * at.z[i] + at.high[i] * (1.0 - at.z[i]) - at.X[i, i] * at.d[i]
        if data.refit:
            gap += at.floor[i] * at.d[i]
    return gap + (at.X * data.H).sum()


class Course(NamedTuple):
    """Where the iterations are, and room to work in.

    Attributes:
        at: the point.
        work: `[n, n]` factor of `H - diag(d)`.
        mu: `[1]` weight of the barrier, 0 before the first step.
        step: the latest step.
        phi: derivatives at the point.
    """

    at: Iterate
    work: Array
    mu: Array
    step: Iterate
    phi: Derivatives


def saddle_point(
    data: Data, tolerance: float, max_steps: int, stopped: Callable[[], object] = lambda: None,
    start: Array | None = None,
) -> tuple[Array, Array, int]:  # fmt: skip
    """`(z, d, steps)`: the saddle point, and the Newton steps taken.

    Every iterate's d is a valid split, so nothing depends on convergence: the bound is evaluated at what
    comes back.

    Args:
        data: the block; every count is strictly between 0 and its pool's size, and H definite if joint.
        tolerance: stop when the complementarity gap is below this.
        max_steps: Newton steps at most.
        stopped: polled between the steps of wide blocks; a true answer ends them.
        start: `[n]` shares to begin from, strictly between 0 and 1 with the pools' sums; None for even ones.
    """
    course, taken, going = _open(data), 0, True
    if start is not None:
        course.at.z[:] = start
    at_once = max_steps if len(data.H) <= NARROW else 1
    while going and taken < max_steps and not stopped():
        more, going = _advance(data, course, tolerance, min(at_once, max_steps - taken))
        taken += more
    return course.at.z, course.at.d, taken


@njit(cache=True, nogil=True)
def _open(data):
    """The course at its first point."""
    n = len(data.H)
    at, step, work = _iterate(n), _iterate(n), np.empty((n, n))
    phi = Derivatives(np.empty(n), np.empty(n), np.empty((n, n)), np.zeros((n, n)), np.empty((n, n)))
    size = np.zeros(len(data.counts))
    for label in data.labels:
        size[label] += 1.0
    for i in range(n):
        at.z[i] = data.counts[data.labels[i]] / size[data.labels[i]]
    _first_split(data, at.d, work)
    return Course(at, work, np.zeros(1), step, phi)


@njit(cache=True, nogil=True)
def _advance(data, course, tolerance, steps):
    """`(taken, going)`: the steps taken, so many at most, and whether more would gain."""
    at, step, phi, work, mu = course.at, course.step, course.phi, course.work, course.mu
    n = len(at.z)
    for taken in range(1, steps + 1):
        S = inverse(work, n)
        value = joint(data, at.z, at.d, phi) if data.refit else selection(data, at.z, at.d, phi)
        if mu[0] == 0.0:
            mu[0] = max(1.0, abs(value)) / n
            at.X[:] = mu[0] * S
            at.low[:] = mu[0] / at.z
            at.high[:] = mu[0] / (1.0 - at.z)
            if data.refit:
                at.floor[:] = mu[0] / at.d
        if not _direction(data, at, S, mu[0], phi, step):
            return taken, False
        a = _length(data, at, step, work)
        if a == 0.0:
            return taken, False
        for x, dx in (
            (at.z, step.z), (at.d, step.d), (at.low, step.low), (at.high, step.high), (at.floor, step.floor)
        ):  # fmt: skip
            x += a * dx
        for i in range(n):
            at.z[i] = min(max(at.z[i], EDGE), 1.0 - EDGE)
        at.X[:] += a * step.X
        gap = _gap(data, at)
        if gap <= tolerance or a <= STALL:
            return taken, False
        mu[0] = gap / ((4 if data.refit else 3) * n) * min(max(1.0 - a, 0.1), 0.9)
    return steps, True
