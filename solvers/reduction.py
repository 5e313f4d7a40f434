"""From a user's problem to the one solvers see: no movable columns, no gradient when joint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from solvers.hessian import Array, BlockDiagonalHessian, FactorHessian
from solvers.problem import Mask, SubsetProblem


@dataclass(frozen=True)
class Reduction:
    """An equivalent smaller problem, and the way back.

    `original.value(lift(mask)) = problem.value(mask) + offset`, up to `margin` of rounding.

    Attributes:
        original: the problem asked.
        problem: the problem to solve.
        offset: constant taken out of the value.
        margin: what rounding in the reduction can move a value by; bounds are lowered by it.
    """

    original: SubsetProblem
    problem: SubsetProblem
    offset: float
    margin: float

    def lift(self, mask: Mask) -> Mask:
        """A mask of the original problem from one of the reduced."""
        if self.problem is self.original:
            return mask
        full = np.zeros(self.original.W.shape, dtype=bool)
        full[:, self.original.prunable] = mask
        return full

    def lower(self, mask: Mask) -> Mask:
        """A mask of the reduced problem from one of the original."""
        return mask[:, self.original.prunable]


def reduce(problem: SubsetProblem) -> Reduction:
    """Eliminate movable columns by a Schur complement, and the gradient of a joint problem by a shift.

    Joint: with `w~ = w - H^-1 g` the cost is `1/2 w~_P' ([H^-1]_PP)^-1 w~_P - 1/2 g' H^-1 g`, and
    eliminating columns b leaves the Schur complement `S = H_pp - H_pb H_bb^-1 H_bp`.
    Selection: the cost is `1/2 D_P' S D_P + (g_P - H_Pb H_bb^-1 g_b) . D_P - 1/2 g_b' H_bb^-1 g_b`.
    """
    b, p = problem.movable, problem.prunable
    shifting = problem.refit and problem.G is not None
    if not len(b) and not shifting:
        return Reduction(problem, problem, 0.0, 0.0)
    W, H, G = problem.W[:, p].copy(), problem.hessian, problem.G
    if H.wide and isinstance(H, FactorHessian | BlockDiagonalHessian):
        return _factored(problem, H)
    offset, condition = 0.0, 1.0
    reduced: list[Array] = []
    gradient = None if G is None or problem.refit else G[:, p].copy()
    for r in range(H.rows or 1):
        rows = slice(None) if H.shared else slice(r, r + 1)
        A = H.dense(r)
        if shifting:
            assert G is not None
            L, rcond = _cholesky(A)
            step = scipy.linalg.cho_solve((L, True), G[rows].T).T
            W[rows] -= step[:, p]
            offset -= 0.5 * float(np.einsum("ri,ri->", G[rows], step))
            condition = max(condition, 1.0 / rcond)
        if len(b):
            L, rcond = _cholesky(A[np.ix_(b, b)])
            X = scipy.linalg.cho_solve((L, True), A[np.ix_(b, p)])
            S = A[np.ix_(p, p)] - A[np.ix_(p, b)] @ X
            condition = max(condition, 1.0 / rcond)
            if gradient is not None:
                assert G is not None
                gradient[rows] -= G[rows][:, b] @ X
                pull = scipy.linalg.cho_solve((L, True), G[rows][:, b].T).T
                offset -= 0.5 * float(np.einsum("ri,ri->", G[rows][:, b], pull))
            reduced.append(0.5 * (S + S.T))
    hessian = H if not reduced else reduced[0] if H.shared else np.stack(reduced)
    smaller = SubsetProblem(W, hessian, problem.budget, refit=problem.refit, gradient=gradient)
    margin = problem.n * np.finfo(float).eps * condition * (problem.scale + smaller.scale + abs(offset))
    return Reduction(problem, smaller, offset, margin)


def _factored(problem: SubsetProblem, H: FactorHessian | BlockDiagonalHessian) -> Reduction:
    """`reduce` where the matrix is not formed: a Schur complement of a factor is one again.

    With an inexact step `s = H^-1 g` and `r = g - H s` the shifted cost is off by `r.E`, `E = D + s`. At a
    mask's best move that is at most `|r| |E| <= |r| (2 v / c)^1/2`, with its reduced cost v and the least
    damping c; and v is at most the cost of pruning everything. A factor that is off by `e` in norm moves
    the cost by at most `(2 v)^1/2 e |E|`.
    """
    b, p, unit = problem.movable, problem.prunable, 2.0 * problem.n * np.finfo(float).eps
    W, G, offset, margin = problem.W, problem.G, 0.0, 0.0
    size = np.sqrt(H.diagonal())
    shifting = problem.refit and G is not None
    if shifting:
        assert G is not None
        step = H.solve(0, np.arange(problem.n), G.T).T
        product = H.matmul(step)
        W = W - step
        offset = -0.5 * float((step * (2.0 * G - product)).sum())
        rounding = unit * (np.abs(G) + (np.abs(step) @ size)[:, None] * size)
        rest = float(np.linalg.norm(np.abs(G - product) + rounding))
    cost = 0.5 * float((W * H.matmul(W)).sum())
    length = np.sqrt(2.0 * cost / float(H.ridge.min())) if problem.refit else float(np.linalg.norm(W))
    if shifting:
        margin = rest * length
        G = None
    if len(b):
        condition = float(np.linalg.cond(H.block(0, b)))
        if G is not None:
            step = np.zeros(W.shape)
            step[:, b] = H.solve(0, b, G[:, b].T).T
            offset -= 0.5 * float((G * step).sum())
            margin += unit * condition * float(np.abs(G * W).sum() + np.abs(G * step).sum())
            G = G - H.matmul(step)
        margin += unit * np.sqrt(condition * 2.0 * cost) * float(np.linalg.norm(size)) * length
        H = H.eliminate(b)
    smaller = SubsetProblem(
        W[:, p], H, problem.budget, refit=problem.refit, gradient=None if G is None else G[:, p]
    )
    margin += unit * (problem.scale + smaller.scale + abs(offset))
    return Reduction(problem, smaller, offset, margin)


def _cholesky(A: Array) -> tuple[Array, float]:
    L, info = scipy.linalg.lapack.dpotrf(np.ascontiguousarray(A), lower=1)
    if info != 0:
        raise ValueError("hessian of the movable columns is singular; add damping to its diagonal")
    rcond, _ = scipy.linalg.lapack.dpocon(L, np.abs(A).sum(axis=0).max(), uplo="L")
    return L, max(float(rcond), np.finfo(float).eps)
