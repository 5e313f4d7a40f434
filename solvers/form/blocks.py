"""Independent pieces of a problem: what splits, relaxations and trees work on, and foreign solvers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from solvers.hessian import Array, Hessian
from solvers.problem import Mask, SubsetProblem


@dataclass(frozen=True)
class Block:
    """One row of decisions, with every weight row that shares it.

    Joint (`refit`): `g` curvatures, each with `c` right-hand sides `b = H w`; keeping the set S costs
    `constant - 1/2 sum b_S' H_SS^-1 b_S`. A lone row has g = c = 1, coupled rows have c = m (one
    curvature) or g = m (one each).
    Selection: `H[0] = A`, `B[0, :, 0] = c` and pruning the set P costs `1/2 x_P'A x_P - c'x_P` with
    `A = sum_r diag(w_r) H_r diag(w_r)`, `c = sum_r g_r o w_r`.

    Attributes:
        refit: joint, or selection.
        H: `[g, n, n]`.
        B: `[g, n, c]`.
        W: `[g, n, c]` the weights themselves.
        constant: cost of keeping nothing (joint) or zero.
        labels: `[n]` pool of every decision, counted from 0, never falling.
        keep: `[pools]` decisions to keep.
        rows: the problem's rows that follow these decisions.
        shared: the curvature that H is the matrix of, where all rows of a joint problem share one; else None.
    """

    refit: bool
    H: Array
    B: Array
    W: Array
    constant: float
    labels: NDArray[np.int64]
    keep: NDArray[np.int64]
    rows: NDArray[np.int64]
    shared: Hessian | None = field(default=None, repr=False, compare=False)

    @property
    def n(self) -> int:
        """Number of decisions."""
        return len(self.labels)

    @property
    def prune(self) -> NDArray[np.int64]:
        """`[pools]` decisions to prune."""
        return np.bincount(self.labels, minlength=len(self.keep)) - self.keep

    @property
    def trivial(self) -> bool:
        """Whether a pool keeps all or nothing, so that no relaxation has an interior."""
        return bool((self.keep == 0).any() or (self.prune == 0).any())

    @cached_property
    def scale(self) -> float:
        """A size to measure rounding against."""
        if self.refit:
            return self.constant
        return float(0.5 * np.abs(self.H).sum() + np.abs(self.B).sum())

    @cached_property
    def floor(self) -> float:
        """A cost that no decisions go below: zero, but for selections, whose terms may cancel."""
        return 0.0 if self.refit or not (self.H.any() or self.B.any()) else -math.inf

    @cached_property
    def rounding(self) -> float:
        """What rounding may move the cost of pruning everything by."""
        size = 2.0 * self.scale
        if self.refit:
            size = sum(
                float((np.abs(W) * (np.abs(H) @ np.abs(W))).sum())
                for H, W in zip(self.H, self.W, strict=True)
            )
        return 2.0 * (self.n + len(self.rows) + 8) * float(np.finfo(float).eps) * size

    @cached_property
    def quick(self) -> Mask:
        """`[n]` a mask by what every decision costs alone, True where pruned."""
        diagonal = np.diagonal(self.H[0])
        if self.refit:
            return self.smallest(diagonal * (self.W[0] ** 2).sum(axis=-1))
        return self.smallest(0.5 * diagonal - self.B[0, :, 0])

    def value(self, pruned: Mask) -> float:
        """Cost of a decision vector `[n]`, True where pruned."""
        if not self.refit:
            x = pruned.astype(np.float64)
            return float(0.5 * x @ self.H[0] @ x - self.B[0, :, 0] @ x)
        kept = np.flatnonzero(~pruned)
        total = 0.0
        for H, W in zip(self.H, self.W, strict=True):
            D = np.where(pruned[:, None], -W, 0.0)
            if kept.size and pruned.any():
                D[kept] = -np.linalg.solve(H[np.ix_(kept, kept)], (H @ D)[kept])
            total += 0.5 * float(np.einsum("ic,ij,jc->", D, H, D))
        return total

    def smallest(self, score: Array) -> Mask:
        """`[n]` True at every pool's `prune` smallest scores."""
        pruned = np.zeros(self.n, dtype=bool)
        for p, count in enumerate(self.prune):
            pool = np.flatnonzero(self.labels == p)
            pruned[pool[np.argsort(score[pool], kind="stable")[:count]]] = True
        return pruned


def blocks(problem: SubsetProblem, counts: NDArray[np.int64] | None = None) -> list[Block]:
    """Split a reduced problem into independent blocks, in the order of its rows.

    Args:
        problem: without movable columns, and without gradient when joint.
        counts: `[m]` pruned entries of every row: takes the place of the budget, which a budget over
            the whole layer needs before its rows are independent, unless there is one row alone.
    """
    m, n = problem.W.shape
    pools = problem.pools
    if pools.coupled and counts is None:
        return [_coupled(problem)]
    if counts is None and problem.budget.kind == "per_layer" and m > 1:
        raise ValueError("a per_layer budget has no independent rows until counts are given")
    products = problem.hessian.matmul(problem.W)
    found = []
    for r in range(m):
        if counts is None:
            first = pools.labels[r, 0]
            labels = pools.labels[r] - first
            keep = pools.keep[first : first + labels[-1] + 1]
        else:
            labels, keep = np.zeros(n, np.int64), np.array([n - counts[r]])
        H, w = problem.hessian.dense(r), problem.W[r]
        rows, shared = np.array([r]), problem.hessian if problem.hessian.shared else None
        if problem.refit:
            constant = 0.5 * float(w @ products[r])
            B = products[r][None, :, None]
            found.append(Block(True, H[None], B, w[None, :, None], constant, labels, keep, rows, shared))
        else:
            A = w[:, None] * H * w[None, :]
            c = np.zeros(n) if problem.G is None else problem.G[r] * w
            found.append(Block(False, A[None], c[None, :, None], w[None, :, None], 0.0, labels, keep, rows))
    return found


def _coupled(problem: SubsetProblem) -> Block:
    m = problem.m
    labels, keep, rows = problem.pools.labels[0], problem.pools.keep, np.arange(m)
    shared = problem.hessian.shared
    if problem.refit:
        products = problem.hessian.matmul(problem.W)
        constant = 0.5 * float(np.einsum("ri,ri->", problem.W, products))
        if shared:
            H = problem.hessian.dense(0)[None]
            return Block(
                True, H, products.T[None].copy(), problem.W.T[None].copy(), constant, labels, keep, rows
            )
        H = np.stack([problem.hessian.dense(r) for r in range(m)])
        return Block(True, H, products[:, :, None], problem.W[:, :, None], constant, labels, keep, rows)
    if shared:
        A = problem.hessian.dense(0) * (problem.W.T @ problem.W)
    else:
        A = sum(np.outer(w, w) * problem.hessian.dense(r) for r, w in enumerate(problem.W))  # type: ignore[assignment]
    c = np.zeros(problem.n) if problem.G is None else (problem.G * problem.W).sum(axis=0)
    return Block(False, A[None], c[None, :, None], problem.W.T[None].copy(), 0.0, labels, keep, rows)


def assemble(problem: SubsetProblem, found: list[Block], pruned: list[Mask]) -> Mask:
    """The problem's `[m, n]` mask from every block's decisions."""
    mask = np.zeros(problem.W.shape, dtype=bool)
    for block, choice in zip(found, pruned, strict=True):
        mask[block.rows] = choice
    return mask


@dataclass
class Part:
    """An independent piece of a problem, and what is known of its optimum.

    Attributes:
        problem: the piece as a problem of its own.
        rows: its rows in the whole.
        mask: its best mask so far.
        value: the mask's value.
        floor: a bound known before any foreign solver ran.
        claim: the best bound a foreign solver claimed, already widened.
        gap: relative gap to ask of the foreign solver.
        seconds: time it may take, or None.
        nodes: its work so far.
        attempts: times that a foreign solver was started on it.
    """

    problem: SubsetProblem
    rows: slice
    mask: Mask
    value: float
    floor: float
    claim: float = -math.inf
    gap: float = 0.0
    seconds: float | None = None
    nodes: int = 0
    attempts: int = 0

    @property
    def excess(self) -> float:
        """How far the claim lies above the value of a mask: a bound on what the claim is wrong by."""
        return max(0.0, self.claim - self.value)

    @property
    def bound(self) -> float:
        """The best valid bound: a claim above the value is lowered by twice its visible error."""
        return max(self.floor, self.claim - 2.0 * self.excess)

    def met(self, gap: float) -> bool:
        """Whether a relative gap is proven."""
        return self.value - self.bound <= gap * abs(self.value)

    def promise(self, gap: float, seconds: float | None) -> bool:
        """Set what the next attempt is asked; False if it is hardly more than the last."""
        again = (
            not self.attempts
            or gap < 0.9 * self.gap
            or (self.seconds is not None and seconds is not None and seconds > 2.0 * self.seconds)
        )
        if again:
            self.gap, self.seconds = gap, seconds
            self.attempts += 1
        return again

    def found(self, mask: Mask) -> bool:
        """Take a mask if it is the best so far; its value is recomputed."""
        value = self.problem.value(mask)
        better = value < self.value
        if better:
            self.mask, self.value = mask, value
        return better


def independent(problem: SubsetProblem) -> list[tuple[slice, SubsetProblem]]:
    """The pieces of a reduced problem that share no pool: one a row, or the whole.

    Returns:
        Their rows in the problem, and each as a problem of its own.
    """
    if problem.budget.kind == "per_layer" or problem.pools.coupled or problem.m == 1:
        return [(slice(0, problem.m), problem)]
    return [(slice(r, r + 1), problem.row(r)) for r in range(problem.m)]
