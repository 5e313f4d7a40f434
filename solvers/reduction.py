"""From a user's problem to the one solvers see: no movable columns, no gradient when joint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from solvers.hessian import Array
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


def _cholesky(A: Array) -> tuple[Array, float]:
    L, info = scipy.linalg.lapack.dpotrf(np.ascontiguousarray(A), lower=1)
    if info != 0:
        raise ValueError("hessian of the movable columns is singular; add damping to its diagonal")
    rcond, _ = scipy.linalg.lapack.dpocon(L, np.abs(A).sum(axis=0).max(), uplo="L")
    return L, max(float(rcond), np.finfo(float).eps)
