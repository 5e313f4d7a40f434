"""From a user's problem to the one solvers see: no movable columns, no gradient when joint."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.budget import POOLS, Budget
from solvers.hessian import Array, BlockDiagonalHessian, DenseHessian, FactorHessian, Hessian, StackedHessian
from solvers.hessian.base import SINGULAR, units
from solvers.hessian.base import condition as unit_condition
from solvers.hessian.doubled import add_product, dot, multiply, remainder
from solvers.problem import EPS, Mask, SubsetProblem

DELICATE = 1e6
"""Condition beyond which shifts are computed in doubled precision."""
RIDGE = 1e-13
"""Part of H's diagonal, times n, by which that of a Schur complement is lifted that is not semidefinite."""
DOUBLED = 1e-10
"""What doubled precision leaves of H's entries in a Schur complement, in units of eps; generous."""
Product = Callable[[Array, Array], tuple[Array, Array]]
"""`H (x + y)` of heads and tails, as heads and tails."""
PASSES = 3
"""Refinements of a solve in doubled precision."""


@dataclass(frozen=True)
class Reduction:
    """An equivalent smaller problem, and the way back.

    `original.value(lift(mask)) = problem.value(mask) + offset`, up to `margin` of rounding.

    Attributes:
        original: the problem asked.
        problem: the problem to solve.
        offsets: `[m]` constants taken out of the rows' values.
        margin: what rounding in the reduction can move a value by; bounds are lowered by it.
        columns: the original's column of each of the problem's; None for its prunable ones in order.
    """

    original: SubsetProblem
    problem: SubsetProblem
    offsets: Array
    margin: float
    columns: NDArray[np.int64] | None = None

    @property
    def offset(self) -> float:
        """Constant taken out of the value."""
        return float(self.offsets.sum())

    def lift(self, mask: Mask) -> Mask:
        """A mask of the original problem from one of the reduced."""
        if self.problem is self.original:
            return mask
        full = np.zeros(self.original.W.shape, dtype=bool)
        full[:, self.original.prunable if self.columns is None else self.columns] = mask
        return full

    def lower(self, mask: Mask) -> Mask:
        """A mask of the reduced problem from one of the original."""
        return mask[:, self.original.prunable if self.columns is None else self.columns]


def reduce(problem: SubsetProblem) -> Reduction:
    """No movable columns, no gradient when joint, and pools that are neighbours; see `Reduction`."""
    found = _eliminated(problem)
    return _sorted(found) if problem.budget.kind == POOLS else found


def _sorted(found: Reduction) -> Reduction:
    """The same with the inputs of every pool side by side: a budget of `groups`."""
    smaller, budget = found.problem, found.problem.budget
    labels = np.asarray(budget.labels)
    order = np.argsort(labels, kind="stable")
    sizes, prune = np.bincount(labels).tolist(), budget.prune
    grouped = Budget.groups(sizes, prune, shared=budget.shared)  # type: ignore[arg-type]
    if (labels[1:] >= labels[:-1]).all():
        return replace(found, problem=smaller.with_budget(grouped), columns=found.original.prunable)
    moved = SubsetProblem(
        smaller.W[:, order], smaller.hessian.select(order), grouped, refit=smaller.refit,
        gradient=None if smaller.G is None else smaller.G[:, order],
    )  # fmt: skip
    return replace(found, problem=moved, columns=found.original.prunable[order])


def _eliminated(problem: SubsetProblem) -> Reduction:
    """Eliminate movable columns by a Schur complement, and the gradient of a joint problem by a shift.

    Joint: with `w~ = w - H^-1 g` the cost is `1/2 w~_P' ([H^-1]_PP)^-1 w~_P - 1/2 g' H^-1 g`, and
    eliminating columns b leaves the Schur complement `S = H_pp - H_pb H_bb^-1 H_bp`.
    Selection: the cost is `1/2 D_P' S D_P + (g_P - H_Pb H_bb^-1 g_b) . D_P - 1/2 g_b' H_bb^-1 g_b`. Where
    H is singular up to rounding, S may be so far from semidefinite that its diagonal is lifted.
    """
    b, p = problem.movable, problem.prunable
    shifting = problem.refit and problem.G is not None
    if not len(b) and not shifting:
        return Reduction(problem, problem, np.zeros(problem.m), 0.0)
    W, H, G = problem.W[:, p].copy(), problem.hessian, problem.G
    if H.implicit and isinstance(H, FactorHessian | BlockDiagonalHessian):
        return _factored(problem, H)
    offsets, margin = np.zeros(problem.m), 0.0
    reach = np.abs(problem.W)
    reduced: list[Array] = []
    gradient = None if G is None or problem.refit else G[:, p].copy()
    for r in range(H.rows or 1):
        rows = slice(None) if H.shared else slice(r, r + 1)
        A = H.dense(r)
        if shifting:
            assert G is not None
            given, condition = (A, problem.W[rows], G[rows]), H.condition(r)
            mild = condition <= DELICATE
            shift = _mild_shift(*given, condition) if mild else _shift(*given, _product(H, r))
            W[rows] -= shift.step[:, p]
            reach[rows] += np.abs(shift.step)
            offsets[rows] += shift.offsets
            margin += shift.margin
        if len(b):
            if not isinstance(H, DenseHessian | StackedHessian):
                moving = A if problem.refit else A[np.ix_(b, b)]
                margin += _formed(unit_condition(moving), reach[rows] * np.sqrt(H.diagonal()))
            across = np.ascontiguousarray(A[np.ix_(p, b)])
            X = _solve(A[np.ix_(b, b)], across, PASSES)
            S = remainder(A[np.ix_(p, p)], across, *X)
            if gradient is not None:
                assert G is not None
                for at in range(problem.m)[rows]:
                    g = G[at]
                    pull = _solve(A[np.ix_(b, b)], g[None, b], PASSES)
                    gradient[at] = remainder(g[None, p], across, *pull)[0]
                    offsets[at] -= 0.5 * dot(g[b], pull[0][0], pull[1][0])
            reduced.append(0.5 * (S + S.T))
    hessian = H if not reduced else reduced[0] if H.shared else np.stack(reduced)
    options: dict[str, Any] = {"refit": problem.refit, "gradient": gradient}
    try:
        smaller = SubsetProblem(W, hessian, problem.budget, **options)
    except ValueError:
        if problem.refit:
            raise
        ridge = RIDGE * problem.n * np.broadcast_to(H.diagonal()[..., p], W.shape)
        lift = ridge[0] if H.shared else ridge
        smaller = SubsetProblem(W, hessian + lift[..., None] * np.eye(len(p)), problem.budget, **options)
        margin += 0.5 * float((ridge * W * W).sum())
    margin += 4.0 * EPS * float(smaller.scale + np.abs(offsets).sum())
    if len(b):
        margin += _rounded(smaller, H.diagonal()[..., p])
    return Reduction(problem, smaller, offsets, margin)


def _rounded(smaller: SubsetProblem, diagonal: Array) -> float:
    """What rounding the entries of Schur complements, and gradients, can move a cost by.

    `1/2 x'E x` with `|E_ij| <= eps (S_ii S_jj)^1/2`: at most n times the condition of S at unit diagonal of a
    joint cost, and a sum over what is pruned of a selection's. Doubled precision itself leaves a part of
    about eps^2 of H's entries, which is all there is of a complement that is zero.

    Args:
        smaller: the reduced problem.
        diagonal: of H, `[n]` or `[m, n]`, on the columns that stay.
    """
    if smaller.refit:
        condition = max(smaller.hessian.condition(r) for r in range(smaller.hessian.rows or 1))
        return float(smaller.n * EPS * condition * smaller.scale)
    root = np.sqrt(np.maximum(smaller.hessian.diagonal(), 0.0))
    size = float(((np.abs(smaller.W) * root).sum(axis=1) ** 2).sum())
    size += DOUBLED * float(((np.abs(smaller.W) * np.sqrt(diagonal)).sum(axis=1) ** 2).sum())
    return EPS * (size + (0.0 if smaller.G is None else float(np.abs(smaller.G * smaller.W).sum())))


def _formed(condition: float, reach: Array) -> float:
    """What rounding the entries of a factor's matrix, which is formed, can move a cost by.

    `1/2 x'E x` with `|E_ij| <= c eps (H_ii H_jj)^1/2`, of a move x as far as what is pruned times the
    condition of what moves.

    Args:
        condition: at unit diagonal.
        reach: `[m, n]` how far weights go at most without that, times `H_ii^1/2`.
    """
    return float(4.0 * reach.shape[1] * EPS * condition * np.square(reach.sum(axis=1)).sum())


def _product(H: Hessian, row: int) -> Product:
    """Products with a row's matrix in doubled precision, from the numbers that it is stored in."""
    if isinstance(H, DenseHessian | StackedHessian):
        A = np.ascontiguousarray(H.dense(row))
        return lambda x, y: multiply(A, x, y)

    def product(x: Array, y: Array) -> tuple[Array, Array]:
        heads, tails = H.doubled(row, x)
        heads, tails = add_product(heads, tails, 1.0, H.matmul(y[None, :])[0])
        return heads, tails

    return product


class _Shift(NamedTuple):
    """Steps `H^-1 g [rows, n]`, what each is worth, and what errors of theirs can move a cost by."""

    step: Array
    offsets: Array
    margin: float


def _mild_shift(A: Array, W: Array, G: Array, condition: float) -> _Shift:
    """The shift of a joint problem's weights by `H^-1 g`, where a plain solve is good enough."""
    steps, _ = _solve(A, G, 0)
    offsets = -0.5 * np.einsum("ri,ri->r", G, steps)
    moved = W - steps
    size = 0.5 * float(np.abs(W * (W @ A)).sum() + np.abs(moved * (moved @ A)).sum())
    size += float(np.abs(offsets).sum())
    return _Shift(steps, offsets, len(A) * EPS * condition * size)


def _shift(A: Array, W: Array, G: Array, product: Product) -> _Shift:
    """The same in doubled precision, for any condition.

    A cost's root is a seminorm of the shifted weights `w~` that is nowhere above `(1/2 w~'H w~)^1/2`, so that
    an error e in them moves a cost by at most `(w~'H w~)^1/2 |e|_H + 1/2 |e|_H^2`, where `H e` is the
    residual and what rounding the weights adds. The offset, `1/2 s'H s - g's` at a step s, is right to
    `1/2 |e|_H^2`.
    """
    steps, tails = _solve(A, G, PASSES, product)
    root = np.sqrt(np.diagonal(A))
    offsets, margin, zero = np.zeros(len(W)), 0.0, np.zeros(len(A))
    for r, (w, g, s, t) in enumerate(zip(W, G, steps, tails, strict=True)):
        heads = product(s, zero)
        offsets[r] = dot(s, *add_product(0.5 * heads[0], 0.5 * heads[1], -1.0, g))
        moved = w - s
        size = float(dot(moved, *product(moved, zero)))
        error = math.sqrt(max(float(dot(t, *product(t, zero))), 0.0))
        error = 2.0 * error + EPS * float(root @ (np.abs(moved) + np.abs(s) + np.abs(w)))
        margin += math.sqrt(max(size, 0.0)) * error + error * error
    return _Shift(steps, offsets, margin)


def _solve(A: Array, rhs: Array, passes: int, product: Product | None = None) -> tuple[Array, Array]:
    """`A^-1 b` of every b, `[k, n]`: heads and, after some passes of refinement, tails.

    Raises:
        ValueError: if A is singular.
    """
    scale = units(np.diagonal(A))
    L, info = scipy.linalg.lapack.dpotrf(scale[:, None] * A * scale, lower=1)
    if info != 0:
        raise ValueError(SINGULAR)

    def plain(b: Array) -> Array:
        return np.asarray(scale * scipy.linalg.cho_solve((L, True), (scale * b).T).T)

    A, rhs = np.ascontiguousarray(A), np.ascontiguousarray(rhs)
    heads = np.ascontiguousarray(plain(rhs))
    tails = np.zeros(rhs.shape)
    for _ in range(passes):
        if product is None:
            left = remainder(rhs, A, heads, tails)
        else:
            left = np.stack([_left(b, *product(x, y)) for b, x, y in zip(rhs, heads, tails, strict=True)])
        tails += plain(left)
        total = heads + tails
        heads, tails = total, tails - (total - heads)
    return heads, tails


def _left(b: Array, heads: Array, tails: Array) -> Array:
    """`b - (heads + tails)`, rounded once."""
    heads, tails = add_product(-heads, -tails, 1.0, b)
    return np.asarray(heads + tails)


def _factored(problem: SubsetProblem, H: FactorHessian | BlockDiagonalHessian) -> Reduction:
    """`reduce` where the matrix is not formed: a Schur complement of a factor is one again.

    With an inexact step `s = H^-1 g` and `r = g - H s` the shifted cost is off by `r.E`, `E = D + s`. At a
    mask's best move that is at most `|r| |E| <= |r| (2 v / c)^1/2`, with its reduced cost v and the least
    damping c; and v is at most the cost of pruning everything. A factor that is off by `e` in norm moves
    the cost by at most `(2 v)^1/2 e |E|`.
    """
    b, p, unit = problem.movable, problem.prunable, 2.0 * problem.n * np.finfo(float).eps
    W, G, offsets, margin = problem.W, problem.G, np.zeros(problem.m), 0.0
    size = np.sqrt(H.diagonal())
    shifting = problem.refit and G is not None
    if shifting:
        assert G is not None
        step = H.solve(0, np.arange(problem.n), G.T).T
        product = H.matmul(step)
        W = W - step
        offsets -= 0.5 * (step * (2.0 * G - product)).sum(axis=1)
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
            offsets -= 0.5 * (G * step).sum(axis=1)
            margin += unit * condition * float(np.abs(G * W).sum() + np.abs(G * step).sum())
            G = G - H.matmul(step)
        margin += unit * np.sqrt(condition * 2.0 * cost) * float(np.linalg.norm(size)) * length
        H = H.eliminate(b)
    smaller = SubsetProblem(
        W[:, p], H, problem.budget, refit=problem.refit, gradient=None if G is None else G[:, p]
    )
    margin += unit * float(problem.scale + smaller.scale + np.abs(offsets).sum())
    return Reduction(problem, smaller, offsets, margin)
