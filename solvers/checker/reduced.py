"""A problem without its movable columns: curvature, gradient and offset, each with a bound on its error."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import flint
import numpy as np
from numpy.typing import NDArray

from solvers.checker.problem import Problem
from solvers.checker.rounding import SAFE, TINY, UNIT, Array, dot, product, up
from solvers.checker.semidefinite import semidefinite

PRECISION = 128
"""Bits of ball arithmetic."""
EXACT_WORK = 1e7
"""Products up to which the matrix of a factor is formed in ball arithmetic, before columns are eliminated."""
FORMED = 1 << 14
"""Most columns for which the matrix of a factor is formed."""


@dataclass(frozen=True)
class Reduced:
    """`cost(D) = sum_r offset_r + g_r.D_r + 1/2 D_r H_r D_r'` over prunable columns, `D = -w` where pruned.

    Minimising over the moves of columns b leaves `H = H_pp - H_pb H_bb^-1 H_bp`,
    `g = g_p - H_pb H_bb^-1 g_b` and `offset = -1/2 g_b' H_bb^-1 g_b`.

    Attributes:
        W: `[m, n]`.
        H: `[1 or m, n, n]`, one for all rows or one a row.
        H_error: the same shape.
        G: `[m, n]`.
        G_error: `[m, n]`.
        offset: `[m]`.
        offset_error: `[m]`.
        factored: whether H comes from a Gram matrix and a damping that is not negative.
    """

    W: Array
    H: Array
    H_error: Array
    G: Array
    G_error: Array
    offset: Array
    offset_error: Array
    factored: bool

    @cached_property
    def positive(self) -> bool:
        """Whether every H is shown to be positive semidefinite: then no move costs less than nothing."""
        for H, error in () if self.factored else zip(self.H, self.H_error, strict=True):
            live = np.flatnonzero(H.any(axis=1) | error.any(axis=1))
            if len(live) and semidefinite(H[np.ix_(live, live)], error[np.ix_(live, live)]):
                return False
        return True

    @cached_property
    def linear(self) -> tuple[Array, Array]:
        """`[m, n]` the products `H_r w_r`, and their error."""
        return self.times(self.W)

    def times(self, D: Array) -> tuple[Array, Array]:
        """`[m, n]` the products `H_r D_r`, and their error."""
        if len(self.H) == 1:
            P, error = product(self.H[0], D.T)
            return P.T, (error + SAFE * (self.H_error[0] @ np.abs(D).T)).T
        rows = [product(H, x[:, None]) for H, x in zip(self.H, D, strict=True)]
        slack = SAFE * np.einsum("rij,rj->ri", self.H_error, np.abs(D))
        return np.stack([P[:, 0] for P, _ in rows]), np.stack([e[:, 0] for _, e in rows]) + slack


def reduce_problem(problem: Problem) -> Reduced:
    """Eliminate the movable columns in ball arithmetic; without any, the stored numbers as they are.

    Raises:
        ArithmeticError: if the curvature of the movable columns can't be shown to be positive definite, or
            the matrix of a factor would be too large.
    """
    H, H_error = _curvature(problem)
    W, factored = problem.weights, problem.factor is not None
    G = np.zeros(W.shape) if problem.gradient is None else problem.gradient
    p, b = problem.prunable, problem.movable
    if not len(problem.movable):
        none = np.zeros(len(W))
        if problem.labels is not None:
            W, G = W[:, p], G[:, p]
            H, H_error = (np.ascontiguousarray(A[:, p[:, None], p]) for A in (H, H_error))
        return Reduced(W, H, H_error, G, np.zeros(W.shape), none, none, factored)
    small = problem.factor is not None and problem.factor.size * W.shape[1] <= EXACT_WORK
    definite = factored and problem.damping > 0.0
    stack, stack_error, gradients, offsets = [], [], [], []
    with flint.ctx.workprec(PRECISION):
        for r in range(len(H)):
            mine = slice(None) if len(H) == 1 else slice(r, r + 1)
            corner, cross, outer = (
                _gram(problem, *ends) if small else _balls(H[r][np.ix_(*ends)], H_error[r][np.ix_(*ends)])
                for ends in ((b, b), (b, p), (p, p))
            )
            pull = _balls(G[mine][:, b].T, np.zeros((len(b), len(G[mine]))))
            try:
                if not definite and semidefinite(H[r][np.ix_(b, b)], H_error[r][np.ix_(b, b)]):
                    raise ZeroDivisionError
                X, y = corner.solve(cross), corner.solve(pull)
            except ZeroDivisionError:
                raise ArithmeticError("curvature of the movable columns is not positive definite") from None
            mid, error = _floats(outer - cross.transpose() * X, len(p))
            stack.append(0.5 * (mid + mid.T))
            stack_error.append(
                up(SAFE * (np.maximum(error, error.T) + np.abs(mid - mid.T) + UNIT * np.abs(mid)))
            )
            gradients.append(_floats(_balls(G[mine][:, p].T, 0.0) - cross.transpose() * y, len(p)))
            offsets += [
                _floats(flint.arb_mat(1, 1, [(pull.transpose() * y)[i, i] / -2]), 1)
                for i in range(len(G[mine]))
            ]
    return Reduced(
        W[:, p], np.stack(stack), np.stack(stack_error),
        np.concatenate([g.T for g, _ in gradients]), np.concatenate([e.T for _, e in gradients]),
        np.array([o.item() for o, _ in offsets]), np.array([e.item() for _, e in offsets]),
        factored,
    )  # fmt: skip


def _curvature(problem: Problem) -> tuple[Array, Array]:
    """The stored curvature, or `X'X / N + damping I` with the rounding of forming it."""
    if problem.hessian is not None:
        H = problem.hessian.reshape(-1, *problem.hessian.shape[-2:])
        return H, np.broadcast_to(0.0, H.shape)
    X = problem.factor
    assert X is not None
    if X.shape[1] > FORMED:
        raise ArithmeticError(f"a factor of {X.shape[1]} columns can only have bounds in its image")
    P, error = product(X.T, X)
    H = P / len(X)
    error = up(SAFE * (error / len(X) + UNIT * np.abs(H)) + 2 * TINY)
    diagonal = np.diag_indices(len(H))
    H[diagonal] += problem.damping
    error[diagonal] = up(error[diagonal] + SAFE * UNIT * np.abs(H[diagonal]))
    return H[None], error[None]


def _gram(problem: Problem, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> flint.arb_mat:
    """Part of the matrix of a factor, from its stored numbers."""
    X = problem.factor
    assert X is not None
    left, right = _balls(X[:, rows], 0.0), _balls(X[:, columns], 0.0)
    product_ = left.transpose() * right / len(X)
    return product_ + _balls(problem.damping * (rows[:, None] == columns[None, :]), 0.0)


def _balls(mid: Array, error: Array | float) -> flint.arb_mat:
    rows, columns = mid.shape
    pairs = zip(mid.ravel().tolist(), np.broadcast_to(error, mid.shape).ravel().tolist(), strict=True)
    return flint.arb_mat(rows, columns, [flint.arb(x, e) for x, e in pairs])


def _floats(balls: flint.arb_mat, rows: int) -> tuple[Array, Array]:
    entries = balls.entries()
    mid = [float(x.mid()) for x in entries]
    error = [float((x - y).abs_upper()) for x, y in zip(entries, mid, strict=True)]
    return np.array(mid).reshape(rows, -1), up(np.array(error).reshape(rows, -1))


def interval(x: NDArray[np.float64], y: Array, y_error: Array) -> tuple[float, float]:
    """Ends of an interval that holds `sum x y` for every y within its error."""
    mid, error = dot(x, y, y_error, tuple(range(x.ndim)))
    return float(np.nextafter(mid - error, -np.inf)), float(np.nextafter(mid + error, np.inf))
